"""SHA-256 of files by content, kept so that an unchanged file is not read again. Torch-free.

What is kept is only a shortcut: an entry counts while size, times and inode of the file are those of the reading. A
file that changed a moment ago is read each time, because a further change might leave no trace in its times.
"""

import hashlib
import json
import os
import time
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from apd_bench.core.cache import cache_root
from apd_bench.core.errors import CorruptFile, UserError
from apd_bench.core.files import atomic_write, file_digest

_FRESH_NS = 2_000_000_000  # the coarsest clock of a file system in use (FAT: 2 s)


def file_marks(found: os.stat_result) -> list[int]:
    """What changes with the content of a file: size, times of modification and of status, inode."""
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def content_digests(base: Path, keys: Iterable[str], *, part: str = "") -> list[str]:
    """The SHA-256 of the files `keys` below `base`, in their order; raises CorruptFile for one that cannot be read.

    `part` names the list of files: what is kept of another part of the same folder stays.
    """
    cache = cache_root()
    name = hashlib.sha256(os.fsencode(base.resolve()) + b"\0" + part.encode()).hexdigest()[:16]
    path = None if cache is None else cache / "digests" / f"{name}.json"
    known, kept, digests = _read(path), {}, []
    now = time.time_ns()
    for key in keys:
        file = base / key
        try:
            marks = file_marks(file.stat())
            entry = known.get(key)
            if not isinstance(entry, list) or len(entry) != 2 or entry[0] != marks:
                entry = [marks, file_digest(file)]
        except OSError as error:
            raise CorruptFile(f"{file} cannot be read: {error.strerror or error}.") from error
        digests.append(str(entry[1]))
        if now - max(marks[1:3]) > _FRESH_NS:
            kept[key] = entry
    if path is not None and kept != known:
        with suppress(UserError, OSError):  # without it, everything is read once more
            atomic_write(path, json.dumps(kept).encode())
    return digests


def _read(path: Path | None) -> dict[str, object]:
    try:
        known = json.loads(path.read_bytes()) if path is not None else {}
    except (OSError, ValueError, RecursionError):
        return {}
    return known if isinstance(known, dict) else {}
