"""Text from files and from people made safe to show on one line, and to name a file with."""

from __future__ import annotations

import os
import re
from pathlib import Path

_CONTROL = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028\u2029\u200b-\u200f\u202a-\u202e\u2066-\u2069\ufeff]+")
LONGEST = 80


def plain(text: object, longest: int = LONGEST) -> str:
    """One line without control or direction marks, cut to `longest` characters."""
    line = " ".join(_CONTROL.sub(" ", str(text)).split())
    return line if len(line) <= longest else line[: longest - 1] + "…"


def plain_lines(text: object) -> str:
    """Text of any length with its lines, without control or direction marks."""
    return "\n".join(_CONTROL.sub(" ", line) for line in str(text).split("\n"))


def file_name(text: str) -> str:
    """A file name made of letters, digits, dot, dash and underscore; never empty, never hidden, never a path."""
    name = re.sub(r"[^A-Za-z0-9._-]+", "-", plain(text, 60)).strip("-.")
    return name or "unnamed"


def is_utf8(name: str) -> bool:
    """Whether a file name as the system gave it is UTF-8; others could stand in no record."""
    try:
        name.encode()
    except UnicodeEncodeError:
        return False
    return True


def printable(path: Path | str) -> str:
    """`path` with bytes that are not UTF-8, and control characters, as escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
