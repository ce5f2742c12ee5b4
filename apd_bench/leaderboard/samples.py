"""Which samples cells were measured on, compared without reading thousands of equal lists of ids."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping

import numpy as np
from numpy.typing import NDArray

from apd_bench.leaderboard.tidy import Measurement


def common_ids(items: list[Measurement], names: Mapping[str, str]) -> dict[str, NDArray[np.str_]]:
    """The sample ids on which most cells of a dataset were measured."""
    arrays: dict[int, NDArray[np.str_]] = {}  # equal ids are mostly one array: it is counted before it is read
    counts: Counter[tuple[str, int]] = Counter()
    for item in items:
        if item.evidence is not None and item.done:
            arrays[id(item.evidence.ids)] = item.evidence.ids
            counts[item.dataset_key, id(item.evidence.ids)] += 1
    seen: dict[str, Counter[tuple[str, ...]]] = {dataset: Counter() for dataset in names}
    first: dict[tuple[str, ...], NDArray[np.str_]] = {}
    for (dataset, place), count in counts.items():
        ids = tuple(arrays[place].tolist())
        seen[dataset][ids] += count
        first.setdefault(ids, arrays[place])
    return {
        dataset: first[max(sorted(counter), key=lambda ids: counter[ids])]
        for dataset, counter in seen.items()
        if counter
    }


def same_ids(first: NDArray[np.str_], second: NDArray[np.str_]) -> bool:
    """Whether two sorted arrays of ids are equal; mostly they are one array."""
    return first is second or np.array_equal(first, second)
