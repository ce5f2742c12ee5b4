"""Colour, mark and dash of each method, the same in figures and on the page; the first 24 differ in grey print too."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from apd_bench.leaderboard.model import Table

_COLOURS = ("#0072b2", "#d55e00", "#009e73", "#cc79a7", "#e69f00", "#56b4e9", "#8c564b", "#7f7f7f")
_MARKS = "osD^vP*X"  # as matplotlib writes them
_DASHES = ("-", "--", ":")


@dataclass(frozen=True)
class Look:
    """How one line or point is drawn; `mark` and `dash` are matplotlib's signs."""

    colour: str
    mark: str
    dash: str


def look(place: int) -> Look:
    """The look at a place in an order."""
    turn = place // len(_COLOURS)
    mark = _MARKS[(place + turn) % len(_MARKS)]
    return Look(_COLOURS[place % len(_COLOURS)], mark, _DASHES[turn % len(_DASHES)])


def looks(tables: Sequence[Table]) -> dict[str, Look]:
    """The look of every ranked method: best first in the first table that has it, so one method has one look."""
    methods = dict.fromkeys(row.method for table in tables for row in table.ranked)
    return {method: look(place) for place, method in enumerate(methods)}
