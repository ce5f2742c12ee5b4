"""The grid of a table: the datasets, seeds, attacks and samples that most of its methods were measured with.

A store holds leftovers: a dataset, a seed or an attack that one method has and the others never tried. They must not
make every other row incomplete. So a value belongs to the grid when more than half of the methods were tried on it; a
cell that failed counts, since it was meant to be there. What is left over is not lost: further datasets get a table of
their own, further attacks lower the worst case of the rows that have them, further seeds are named below the table.
"""

from collections import Counter, defaultdict
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import TypeVar

import numpy as np
from numpy.typing import NDArray

from apd_bench.leaderboard.tidy import Measurement

RowKey = tuple[str, str]
T = TypeVar("T", bound=Hashable)


def by_row(items: Iterable[Measurement]) -> dict[RowKey, list[Measurement]]:
    """Measurements by method and recipe; recipes of one method that never meet on a dataset are one row."""
    rows: dict[RowKey, list[Measurement]] = defaultdict(list)
    for item in items:
        rows[(item.method, item.variant)].append(item)
    for method in sorted({method for method, _ in rows}):
        own = sorted(row for row in rows if row[0] == method)
        places = [dataset for row in own for dataset in {item.dataset_key for item in rows[row]}]
        if len(own) > 1 and len(places) == len(set(places)):
            for row in own[1:]:
                rows[own[0]].extend(rows.pop(row))
    return rows


def parts_by_dataset(items: Sequence[Measurement]) -> list[list[Measurement]]:
    """`items` in parts of their own datasets: what most methods were tried on, then what most of the rest were, ..."""
    parts = []
    rest = list(items)
    while rest:
        rows = by_row(rest)
        kept = _common(_learning(rows) or rows, lambda item: item.dataset_key)
        parts.append([item for item in rest if item.dataset_key in kept])
        rest = [item for item in rest if item.dataset_key not in kept]
    return parts


def common_seeds(rows: Mapping[RowKey, list[Measurement]]) -> tuple[int, ...]:
    """The seeds of the methods that learn something; seed 0 alone where none does."""
    return tuple(sorted(_common(_learning(rows), lambda item: item.seed))) or (0,)


def common_attacks(rows: Mapping[RowKey, list[Measurement]]) -> set[str]:
    """The attacks inside a ball that are columns; those that report a distance are not."""
    measured = {key: [item for item in items if not item.distance_attack] for key, items in rows.items()}
    return _common(measured, lambda item: item.attack)


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


def _learning(rows: Mapping[RowKey, list[Measurement]]) -> Mapping[RowKey, list[Measurement]]:
    """The rows that decide on datasets: a method without training is measured wherever some other method is."""
    return {key: items for key, items in rows.items() if items[0].trains}


def _common(rows: Mapping[RowKey, list[Measurement]], value: Callable[[Measurement], T]) -> set[T]:
    """The values that more than half of the rows have, or those that most have where none is so frequent."""
    voters = [{value(item) for item in items} for items in rows.values() if items]
    votes = Counter(one for values in voters for one in values)
    if not votes:
        return set()
    needed = min(len(voters) // 2 + 1, max(votes.values()))
    return {one for one, count in votes.items() if count >= needed}
