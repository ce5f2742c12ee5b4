"""Text from files and from people made safe to show on one line, in a table, and to name a file with."""

import json
import re
from collections.abc import Sequence
from typing import Any

_HARMFUL = "\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2060-\u2069\ud800-\udfff\ufeff"
_CONTROL = re.compile(f"[\x00-\x1f{_HARMFUL}]+")
_UNPRINTABLE = re.compile(f"[\x00-\x08\x0b-\x1f{_HARMFUL}]")
LONGEST = 80


def plain(text: object, longest: int = LONGEST) -> str:
    """One line without control or direction marks, cut to `longest` characters."""
    return cut(" ".join(_CONTROL.sub(" ", str(text)).split()), longest)


def cut(text: str, longest: int) -> str:
    """The text, its end left out where it is too long."""
    return text if len(text) <= longest else text[: longest - 1] + "…"


def plain_lines(text: object) -> str:
    """Text of any length with its lines, without control or direction marks."""
    return "\n".join(_CONTROL.sub(" ", line) for line in str(text).split("\n"))


def counted(number: int, what: str) -> str:
    """A number of things: "1 cell", "20 cells"."""
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def json_text(value: Any, deep: int, indent: str = "", *, allow_nan: bool = True) -> str:
    """JSON with sorted keys, without blanks to spare; what lies up to `deep` levels within has a line of its own.

    Raises ValueError for NaN and infinities where `allow_nan` is off.
    """
    if not deep or not value or not isinstance(value, (dict, list)):
        return json.dumps(value, sort_keys=True, separators=(",", ":"), allow_nan=allow_nan)

    def inside(item: Any) -> str:
        return json_text(item, deep - 1, f"{indent} ", allow_nan=allow_nan)

    if isinstance(value, list):
        first, last, lines = "[", "]", [inside(item) for item in value]
    else:
        first, last = "{", "}"
        lines = [f"{json.dumps(key)}: {inside(item)}" for key, item in sorted(value.items())]
    between = f",\n{indent} "
    return f"{first}\n{indent} {between.join(lines)}\n{indent}{last}"


def file_name(text: str) -> str:
    """A file name made of letters, digits, dot, dash and underscore; never empty, never hidden, never a path."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain(text, 60)).strip("-.")
    return name or "unnamed"


def spoken(name: str) -> str:
    """A class name as it stands in a prompt and is read aloud: underscores are blanks."""
    return " ".join(name.replace("_", " ").split())


def is_utf8(name: str) -> bool:
    """Whether a file name as the system gave it is UTF-8; others could stand in no record."""
    return not re.search("[\ud800-\udfff]", name)


def printable(text: object) -> str:
    r"""`text` as a terminal may get it: what could move the cursor, colour or turn it is written out, as \x1b.

    So is a byte of a file name that is not UTF-8. Line ends and tabs stay.
    """
    return _UNPRINTABLE.sub(_escaped, str(text))


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = (), *, right: bool = False) -> str:
    """Rows as aligned columns, safe for a terminal; with `right`, all but the first are aligned to the right."""
    lines = [tuple(" ".join(printable(text).split("\n")) for text in row) for row in (header, *rows) if row]
    widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
    sides = [str.rjust if right and place else str.ljust for place in range(len(widths))]
    cells = ([side(text, width) for side, text, width in zip(sides, line, widths, strict=True)] for line in lines)
    return "\n".join("  ".join(line).rstrip() for line in cells)


def _escaped(found: re.Match[str]) -> str:
    sign = found[0]
    if "\udc80" <= sign <= "\udcff":  # how Python holds a byte that no text is
        return f"\\x{ord(sign) - 0xDC00:02x}"
    return sign.encode("unicode_escape").decode()
