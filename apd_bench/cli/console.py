"""Where text goes: results to standard output, everything said to a person to standard error."""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from typing import Any

from apd_bench.core.text import printable


def out(text: str = "") -> None:
    """Writes a line of results."""
    sys.stdout.write(printable(text) + "\n")


def out_json(value: Any) -> None:
    """Writes a value as JSON; control characters are escaped as JSON has it."""
    out(json.dumps(value, indent=1, default=str).replace("\x7f", "\\u007f"))


def err(text: str = "") -> None:
    """Writes a line for the person at the terminal."""
    sys.stderr.write(printable(text) + "\n")
    sys.stderr.flush()


def err_again(text: str, *, last: bool) -> None:
    """Writes a line for the person at the terminal over the one before, and ends it when it is the last."""
    sys.stderr.write("\r" + printable(text) + "\n" * last)
    sys.stderr.flush()


def table(rows: Sequence[tuple[str, ...]], header: tuple[str, ...] = ()) -> str:
    """Rows as aligned columns; the last column is as long as it is."""
    lines = [tuple(" ".join(printable(text).split("\n")) for text in row) for row in (header, *rows) if row]
    if not lines:
        return ""
    widths = [max(len(line[place]) for line in lines) for place in range(len(lines[0]))]
    return "\n".join(
        "  ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)).rstrip() for line in lines
    )
