"""Where text goes: results to standard output, everything said to a person to standard error."""

import json
import sys
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
    """Writes a line for the person at the terminal over the one before, or elsewhere below it; `last` ends it."""
    terminal = sys.stderr.isatty()
    sys.stderr.write("\r" * terminal + printable(text) + "\n" * (last or not terminal))
    sys.stderr.flush()
