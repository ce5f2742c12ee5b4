"""How much is read of what comes from outside: every size is judged before anything is inflated, parsed or decoded.

Whatever is refused here raises ValueError with half a sentence that says why; readers put the file before it.
"""

import json
import re
from collections.abc import Mapping
from typing import Any

JSON_BYTES, JSON_DEPTH = 16 * 2**20, 64
HEADER_BYTES = 4 * 2**20  # of a safetensors file
PIXELS = 89_478_485  # of an image: where Pillow begins to warn
SAMPLE_BYTES = 4096  # of all columns of one sample together
ALWAYS_FINE, TIMES_LARGER = 16 * 2**20, 200  # bytes to inflate to, and how many times what is there
LARGEST_FILE = 512 * 2**20
_BRACKETS = re.compile(r'"(?:[^"\\]|\\.)*"|([\[{])|([\]}])', re.DOTALL)


def parse_json(text: str | bytes, *, largest: int = JSON_BYTES, constants: bool = False) -> Any:
    """The value of JSON text of bounded size and depth; refuses duplicate keys, and NaN and Infinity.

    With `constants`, NaN and Infinity are read as Python writes them.
    """
    if len(text) > largest:
        raise ValueError(f"its {len(text):,} bytes are more than the {largest:,} that are read")
    if isinstance(text, bytes):
        text = text.decode("utf-8")
    if text.count("{") + text.count("[") > JSON_DEPTH and _depth(text) > JSON_DEPTH:
        raise ValueError(f"it is nested deeper than {JSON_DEPTH} levels")
    return json.loads(text, object_pairs_hook=_unique, parse_constant=float if constants else _no_constant)


def inflated(total: int, packed: int, samples: int | None = None) -> None:
    """Refuses `total` bytes out of `packed` ones, or more than so many samples need; what is not packed is fine."""
    if total <= packed and samples is None:
        return
    most = min(max(ALWAYS_FINE, TIMES_LARGER * packed), LARGEST_FILE)
    if samples is not None:
        most = min(most, SAMPLE_BYTES * (samples + 16))
    if total > most:
        raise ValueError(f"it would take {total:,} bytes; at most {most:,} are read")


def safetensors_header(start: bytes, size: int) -> None:
    """Refuses a safetensors file of `size` bytes by its first 8: those are the length of its header."""
    length = int.from_bytes(start[:8], "little")
    if len(start) < 8 or length > min(size - 8, HEADER_BYTES):
        raise ValueError("its header is longer than the file, or than any that is read: it is no safetensors file")


def pixels(width: int, height: int) -> None:
    """Refuses an image that would take too much memory."""
    if width * height > PIXELS:
        raise ValueError(f"it has {width} x {height} pixels; at most {PIXELS:,} are read")


def _depth(text: str) -> int:
    depth = deepest = 0
    for found in _BRACKETS.finditer(text):
        depth += bool(found[1]) - bool(found[2])
        deepest = max(deepest, depth)
    return deepest


def _unique(pairs: list[tuple[str, Any]]) -> Mapping[str, Any]:
    table = dict(pairs)
    if len(table) < len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the key '{next(name for name in names if names.count(name) > 1)}' stands there twice")
    return table


def _no_constant(word: str) -> Any:
    raise ValueError(f"{word} is no JSON number")
