"""The sets inside the package: one npz of encoded images beside one json card. Torch is imported where images are.

Arrays: `blob` uint8 (all encoded images), `offsets` int64 [N+1], `label` int16 [N], `split` uint8 [N] (0 train, 1 val,
2 test), `source` int32 [N]. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from itertools import pairwise
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.specs import DatasetSpec
from apd_bench.data.catalog import REINSTALL, read_card
from apd_bench.data.images import MemoryPixels
from apd_bench.data.listing import SPLITS

if TYPE_CHECKING:
    from apd_bench.data.splits import LoadedDataset


def load(spec: DatasetSpec, *, image_size: int, resize: str = "crop", root: Path | None = None) -> LoadedDataset:
    """The embedded set `spec`; `root` is not used, the files lie inside the package.

    Raises MissingPrerequisite when the file is absent, CorruptFile when it is not the one that the card describes.
    """
    import torch

    from apd_bench.data.splits import ImageSplit, LoadedDataset

    path = Path(spec.options["path"])
    arrays, card = read_arrays(path, spec.digest), read_card(path.with_suffix(".json"))
    offsets, blob = arrays["offsets"].tolist(), arrays["blob"].tobytes()
    encoded = [blob[begin:end] for begin, end in pairwise(offsets)]
    rows = {name: np.flatnonzero(arrays["split"] == code) for code, name in enumerate(SPLITS)}
    ids = {name: tuple(f"{card['name']}/{name}/{place:06d}" for place in range(len(rows[name]))) for name in SPLITS}
    names = dict(zip(np.concatenate([*rows.values()]).tolist(), (i for name in SPLITS for i in ids[name]), strict=True))
    store = MemoryPixels(encoded, names, image_size, resize)
    train, val, test = (
        ImageSplit(name, ids[name], torch.from_numpy(arrays["label"][rows[name]].astype(np.int64)), store, rows[name])
        if ids[name]
        else None
        for name in SPLITS
    )
    if test is None:
        raise CorruptFile(f"{path} has no test images.", hint=REINSTALL)
    origin = {"layout": "embedded", "split": path.name, "derived": []}
    return LoadedDataset(spec, tuple(card["classes"]), spec.template, train, val, test, origin)


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
    offsets, count = arrays["offsets"], len(arrays["label"])
    lengths = (len(offsets) - 1, len(arrays["split"]), len(arrays["source"]))
    if set(lengths) != {count} or (np.diff(offsets) <= 0).any() or offsets[-1] != len(arrays["blob"]):
        raise CorruptFile(f"The arrays in {path} do not fit together.", hint=REINSTALL)
    return arrays
