"""SHA-256 of files by content, kept so that an unchanged file is not read again. Torch-free.

What is kept is only a shortcut: an entry counts while size, times and inode of the file are those of the reading. A
file that changed a moment ago is read each time, because a further change might leave no trace in its times.
"""

import hashlib
import os
import time
from collections.abc import Iterable
from pathlib import Path

from apd_bench.core.cache import cache_values, cached_values
from apd_bench.core.errors import CorruptFile
from apd_bench.core.files import file_digest

_FRESH_NS = 2_000_000_000  # the coarsest clock of a file system in use (FAT: 2 s)


def file_marks(found: os.stat_result) -> list[int]:
    """What changes with the content of a file: size, times of modification and of status, inode."""
    return [found.st_size, found.st_mtime_ns, found.st_ctime_ns, found.st_ino]


def content_digests(base: Path, keys: Iterable[str], *, part: str = "") -> list[str]:
    """The SHA-256 of the files `keys` below `base`, in their order; raises CorruptFile for one that cannot be read.

    `part` names the list of files: what is kept of another part of the same folder stays.
    """
    name = hashlib.sha256(os.fsencode(base.resolve()) + b"\0" + part.encode()).hexdigest()[:16]
    file_of_all = f"digests/{name}.json"
    known, kept, digests = cached_values(file_of_all), {}, []
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
    if kept != known:
        cache_values(file_of_all, kept)
    return digests
