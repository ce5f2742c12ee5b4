"""The cache folder, and in it where files of one's own lay when they were last named, by digest.

Records hold digests and no paths; by this list the names in them can be typed again. It is a convenience: nothing in
it is ever run, and what it says of a file is only believed when the file still has the digest.
"""

import json
import os
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

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
    """Notes that what has `digest` lies at `place`."""
    cache_value(_FILE, digest, place)


def recall(start: str) -> str | None:
    """Where the thing lay whose digest begins with `start`; None when that is not known, or not of one thing alone."""
    found = [str(place) for digest, place in cached_values(_FILE).items() if digest.startswith(start)]
    return found[0] if len(found) == 1 else None


def cached_values(file: str) -> dict[str, Any]:
    """The values that `cache_values` wrote into a file, by key; empty where it is missing or damaged."""
    folder = cache_root()
    try:
        return dict(json.loads((folder / file).read_bytes())) if folder is not None else {}
    except (OSError, ValueError, TypeError, RecursionError):
        return {}


def cache_value(file: str, key: str, value: object) -> None:
    """Writes a JSON value among the others of a file of the cache folder."""
    known = cached_values(file)
    if known.get(key) != value:
        cache_values(file, {**known, key: value})


def cache_values(file: str, values: Mapping[str, object]) -> None:
    """Writes the JSON values of a file of the cache folder; does nothing where there is no folder to write to."""
    if (folder := cache_root()) is not None:
        with suppress(Exception):  # a convenience: no full or closed disk may stop the work
            atomic_write(folder / file, json.dumps(values, sort_keys=True).encode())
