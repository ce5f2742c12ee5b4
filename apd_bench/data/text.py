"""Text files as people write them: UTF-8 with or without a byte order mark, or UTF-16 with one. Torch-free."""

from __future__ import annotations

import codecs
import os
import shlex
from pathlib import Path

from apd_bench.errors import CorruptFile


def read_text(path: Path) -> str:
    """The text of the file `path`.

    Raises FileNotFoundError where it is not there, CorruptFile with the line of the first byte that is no UTF-8.
    """
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        raise
    except OSError as error:
        raise CorruptFile(f"{path} cannot be read: {error.strerror or error}.") from error
    wide = data.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        text = data.decode("utf-16" if wide else "utf-8-sig")
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise CorruptFile(
            f"{path} is not UTF-8 text: line {line} holds the byte 0x{data[error.start]:02x}.",
            hint=f"Convert it: iconv -f LATIN1 -t UTF-8 {shlex.quote(str(path))} > {path.name}.new",
        ) from error
    if "\0" in text:
        raise CorruptFile(
            f"{path} is not UTF-8 text: it holds NUL characters.",
            hint=f"Convert it: iconv -f UTF-16 -t UTF-8 {shlex.quote(str(path))} > {path.name}.new",
        )
    return text


def read_lines(path: Path) -> list[str]:
    """The lines of `path` that are not blank, stripped; raises as `read_text` does."""
    return [line.strip() for line in read_text(path).splitlines() if line.strip()]


def is_utf8(name: str) -> bool:
    """Whether a file name as the system gave it is UTF-8; others could stand in no record."""
    return not any("\ud800" <= sign <= "\udfff" for sign in name)


def printable(path: Path | str) -> str:
    """`path` with bytes that are not UTF-8, and control characters, as escapes."""
    text = os.fsencode(path).decode("utf-8", "backslashreplace")
    return "".join(sign if sign.isprintable() else sign.encode("unicode_escape").decode() for sign in text)
