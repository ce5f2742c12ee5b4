"""The table of a run as it fills: for each method clean and worst accuracy of what is measured so far."""

from collections.abc import Callable, Iterable, Mapping

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
        # by row and set, then by seed and shard: right without attack [N], right under every attack so far [N]
        self._groups: dict[str, dict[str, dict[tuple[object, ...], tuple[Hits, Hits]]]] = {}

    def add(self, cell: Cell, shard: object, outcomes: Outcomes) -> None:
        """Takes in the outcomes of a cell, or of a shard of it; distances to the boundary say nothing of a budget."""
        if cell.attack.name in ATTACKS.names() and ATTACKS.get(cell.attack.name).kind == "distance":
            return
        sets = self._groups.setdefault(self._row(cell), {})
        group = sets.setdefault(f"{cell.dataset.name}/{cell.classes}", {})
        key = (cell.fit.seed, cell.fit.shots, shard)
        standing = ~outcomes.broken
        if key in group and len(group[key][1]) == len(standing):
            standing &= group[key][1]
        group[key] = outcomes.clean_prediction == outcomes.label, standing

    def shares(self, row: str) -> tuple[float, float] | None:
        """Clean and worst accuracy of a row: means over its sets of means over samples; None before anything is there.

        Only the sets that have a cell by now are in it, and only their attacks.
        """
        sets: Mapping[str, Mapping[tuple[object, ...], tuple[Hits, Hits]]] = self._groups.get(row, {})
        if not sets:
            return None
        return _mean(sets.values(), 0), _mean(sets.values(), 1)


def _mean(sets: Iterable[Mapping[tuple[object, ...], tuple[Hits, Hits]]], which: int) -> float:
    return float(np.mean([np.concatenate([pair[which] for pair in group.values()]).mean() for group in sets]))
