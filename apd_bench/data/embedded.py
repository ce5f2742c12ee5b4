"""Loading the sets inside the package (see `packed.py` for their files) through the same interface as any other."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch

from apd_bench.core.errors import CorruptFile
from apd_bench.core.specs import DatasetSpec
from apd_bench.data.catalog import REINSTALL, read_card
from apd_bench.data.images import MemoryPixels
from apd_bench.data.packed import read_arrays
from apd_bench.data.splits import ImageSplit, LoadedDataset

SPLITS = ("train", "val", "test")


def load(spec: DatasetSpec, *, image_size: int, resize: str = "crop", root: Path | None = None) -> LoadedDataset:
    """The embedded set `spec`; `root` is not used, the files lie inside the package.

    Raises MissingPrerequisite when the file is absent, CorruptFile when it is not the one that the card describes.
    """
    path = Path(spec.options["path"])
    arrays = read_arrays(path, spec.digest)
    card = read_card(path.with_suffix(".json"))
    offsets, labels, parts = arrays["offsets"], arrays["label"], arrays["split"]
    blob = arrays["blob"].tobytes()
    encoded = [blob[begin:end] for begin, end in zip(offsets[:-1].tolist(), offsets[1:].tolist(), strict=True)]
    names = [""] * len(encoded)
    rows = {name: np.flatnonzero(parts == code).astype(np.int64) for code, name in enumerate(SPLITS)}
    for name, places in rows.items():
        for place, row in enumerate(places.tolist()):
            names[row] = f"{card['name']}/{name}/{place:06d}"
    store = MemoryPixels(encoded, names, image_size, resize)

    def split(name: str) -> ImageSplit | None:
        places = rows[name]
        if not len(places):
            return None
        ids = tuple(names[row] for row in places.tolist())
        return ImageSplit(name, ids, torch.from_numpy(labels[places].astype(np.int64)), store, places)

    test = split("test")
    if test is None:
        raise CorruptFile(f"{path} has no test images.", hint=REINSTALL)
    return LoadedDataset(
        spec=spec,
        classes=tuple(card["classes"]),
        template=spec.template,
        train=split("train"),
        val=split("val"),
        test=test,
        origin={"layout": "embedded", "split": path.name, "derived": []},
    )
