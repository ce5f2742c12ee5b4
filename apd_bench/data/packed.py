"""The file format of the sets inside the package: one npz of encoded images beside one json card. Torch-free.

Arrays: `blob` uint8 (all encoded images), `offsets` int64 [N+1], `label` int16 [N], `split` uint8 [N] (0 train, 1 val,
2 test), `source` int32 [N]. Nothing is pickled.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.data.catalog import REINSTALL


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
