"""The format of the sets inside the package: one npz of encoded images beside one json card.

Arrays: `blob` uint8 (all encoded images), `offsets` int64 [N+1], `label` int16 [N], `split` uint8 [N] (0 train, 1 val,
2 test), `source` int32 [N]. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from apd_bench.data.catalog import REINSTALL, read_card
from apd_bench.data.images import MemoryPixels
from apd_bench.data.splits import ImageSplit, LoadedDataset
from apd_bench.errors import CorruptFile, MissingPrerequisite
from apd_bench.specs import DatasetSpec

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
            names[row] = f"{spec.name}/{name}/{place:06d}"
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
        origin={"layout": "embedded", "split": path.name, "derived": False},
    )


def read_arrays(path: Path, sha256: str | None) -> dict[str, NDArray[np.generic]]:
    """The arrays of an embedded set; raises CorruptFile naming `path` unless digest, names and lengths agree."""
    try:
        data = path.read_bytes()
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"The embedded images {path} are not there.", hint=REINSTALL) from error
    found = hashlib.sha256(data).hexdigest()
    if sha256 is not None and found != sha256:
        raise CorruptFile(
            f"The embedded images {path} are damaged: their SHA-256 is {found[:12]}..., the card says {sha256[:12]}...",
            hint=REINSTALL,
        )
    try:
        with np.load(io.BytesIO(data), allow_pickle=False) as archive:
            arrays = {name: archive[name] for name in ("blob", "offsets", "label", "split", "source")}
    except (OSError, ValueError, KeyError, EOFError, zipfile.BadZipFile) as error:
        raise CorruptFile(f"The embedded images {path} cannot be read: {error}.", hint=REINSTALL) from error
    count = len(arrays["label"])
    offsets = arrays["offsets"]
    if (
        len(offsets) != count + 1
        or not len(arrays["split"]) == len(arrays["source"]) == count
        or (np.diff(offsets) <= 0).any()
        or offsets[-1] != len(arrays["blob"])
    ):
        raise CorruptFile(f"The arrays in {path} do not fit together.", hint=REINSTALL)
    return arrays
