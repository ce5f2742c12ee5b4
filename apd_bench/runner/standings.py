"""The table of a run as it fills: for each method clean and worst accuracy of what is measured so far."""

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.registry import ATTACKS
from apd_bench.core.specs import Cell
from apd_bench.records.outcomes import Outcomes

Hits = NDArray[np.bool_]


class Standings:
    """Which samples of each row are right, and which have withstood every attack so far; `row` names a cell's row."""

    def __init__(self, row: Callable[[Cell], str]) -> None:
        self._row = row
        # by row, then by set, seed, shots and shard: right without attack [N], right under every attack so far [N]
        self._rows: dict[str, dict[tuple[str, int, int, object], tuple[Hits, Hits]]] = {}

    def add(self, cell: Cell, shard: object, outcomes: Outcomes) -> None:
        """Takes in the outcomes of a cell, or of a shard of it; distances to the boundary say nothing of a budget."""
        if cell.attack.name in ATTACKS.names() and ATTACKS.get(cell.attack.name).kind == "distance":
            return
        known = self._rows.setdefault(self._row(cell), {})
        key = (f"{cell.dataset.name}/{cell.classes}", cell.fit.seed, cell.fit.shots, shard)
        standing = ~outcomes.broken
        if key in known and len(known[key][1]) == len(standing):
            standing &= known[key][1]
        known[key] = outcomes.clean_prediction == outcomes.label, standing

    def shares(self, row: str) -> tuple[float, float] | None:
        """Clean and worst accuracy of a row: means over its sets of means over samples; None before anything is there.

        Only the sets that have a cell by now are in it, and only their attacks.
        """
        sets: dict[str, list[tuple[Hits, Hits]]] = {}
        for (name, *_), hits in self._rows.get(row, {}).items():
            sets.setdefault(name, []).append(hits)
        if not sets:
            return None
        means = [[np.concatenate(hits).mean() for hits in zip(*parts, strict=True)] for parts in sets.values()]
        clean, worst = np.mean(means, axis=0).tolist()
        return clean, worst
