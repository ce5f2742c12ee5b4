"""The cache folder, and in it where files of one's own lay when they were last named, by digest.

Records hold digests and no paths; by this list the names in them can be typed again. It is a convenience: nothing in
it is ever run, and what it says of a file is only believed when the file still has the digest.
"""

from __future__ import annotations

import json
import os
from contextlib import suppress
from pathlib import Path

from platformdirs import user_cache_path

from apd_bench.core.files import atomic_write

CACHE_VARIABLE = "APD_BENCH_CACHE"
_FILE = "whereabouts.json"


def cache_root() -> Path | None:
    """The cache folder: $APD_BENCH_CACHE, else the platform's; None where the variable says "none"."""
    written = os.environ.get(CACHE_VARIABLE, "").strip()
    if written.lower() == "none":
        return None
    return Path(written).expanduser() if written else user_cache_path("apd-bench", appauthor=False)


def remember(digest: str, place: str) -> None:
    """Notes that what has `digest` lies at `place`; does nothing where there is no cache folder to write to."""
    folder, known = _read()
    if folder is not None and known.get(digest) != place:
        with suppress(Exception):  # a convenience: no full or closed disk may stop the work
            folder.mkdir(parents=True, exist_ok=True)
            atomic_write(folder / _FILE, json.dumps({**known, digest: place}, indent=1).encode())


def recall(start: str) -> str | None:
    """Where the thing lay whose digest begins with `start`; None when that is not known, or not of one thing alone."""
    found = [place for digest, place in _read()[1].items() if digest.startswith(start)]
    return found[0] if len(found) == 1 else None


def _read() -> tuple[Path | None, dict[str, str]]:
    folder = cache_root()
    if folder is None:
        return None, {}
    try:
        known = json.loads((folder / _FILE).read_bytes())
        return folder, {str(digest): str(place) for digest, place in known.items()}
    except (OSError, ValueError, AttributeError, RecursionError):
        return folder, {}
