"""The reporters by the name of their display."""

from __future__ import annotations

import os
import sys

from apd_bench.core.errors import UsageError
from apd_bench.runner.reporter import JsonReporter, PlainReporter, Reporter

DISPLAYS = ("auto", "rich", "plain", "json", "none")


def make_reporter(display: str) -> Reporter:
    """The reporter for a `--display` value; "auto" is the live view on a terminal and plain lines elsewhere."""
    if display == "auto":
        display = "rich" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if display == "rich":
        from apd_bench.runner.live import LiveReporter

        return LiveReporter()
    kinds: dict[str, type[Reporter]] = {"plain": PlainReporter, "json": JsonReporter, "none": Reporter}
    if display not in kinds:
        raise UsageError(f"Display '{display}' is not one of: {', '.join(DISPLAYS)}.")
    return kinds[display]()
