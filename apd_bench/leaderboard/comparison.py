"""Two methods on the same samples: who wins where, by how much, and whether that is more than noise."""

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.leaderboard import statistics
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.statistics import Estimate

_DRAWS = 9999


def heads(first: str, second: str) -> list[str]:
    """The heads of a comparison, in a terminal and on the page: means of both methods, then what a contest says."""
    return ["dataset", "column", first, second, "difference", "95 %", "wins", "losses", "of", "p (Holm)"]


@dataclass(frozen=True)
class Contest:
    """One column on one dataset (or on all: `dataset` empty). Wins are (sample, seed) pairs that only A gets right.

    `difference` is A minus B as a share, with its paired 95 % interval; `p` is exact McNemar where there is one seed,
    else from the paired bootstrap over seeds and samples; `adjusted` is after Holm over the datasets of the column.
    """

    dataset: str
    column: str
    first: float
    second: float
    difference: Estimate
    wins: int
    losses: int
    pairs: int
    p: float
    adjusted: float


@dataclass(frozen=True)
class ContestedSample:
    """A sample on which the two differ: in how many seeds each of them withstands every attack."""

    dataset: str
    sample: str
    first: int
    second: int
    seeds: int


@dataclass(frozen=True)
class Comparison:
    """A against B in one table."""

    table: Table
    first: str
    second: str
    overall: tuple[Contest, ...]
    contests: tuple[Contest, ...]
    disagreements: tuple[ContestedSample, ...]
    notes: tuple[str, ...] = ()


def compare_methods(tables: Sequence[Table], first: str, second: str) -> list[Comparison]:
    """A comparison for every table that holds both methods; raises UnknownName or UsageError when there is none."""
    known = sorted({row.method for table in tables for row in table.rows})
    for name in (first, second):
        if name not in known:
            raise unknown_name("measured method", name, known, command="apd-bench report")
    found = []
    for table in tables:
        rows = {row.method: row for row in table.rows}
        if first in rows and second in rows and (made := compare_rows(table, rows[first], rows[second])):
            found.append(made)
    if not found:
        raise UsageError(
            f"'{first}' and '{second}' have no dataset in common in any table.",
            hint="Measure both on the same datasets, attacks and budget; see apd-bench report.",
        )
    return found


def compare_rows(table: Table, first: Row, second: Row) -> Comparison | None:
    """The comparison on the datasets where both rows have the same seeds; None when there is no such dataset."""
    notes, shared = [], []
    for name in table.datasets:
        one, two = first.datasets.get(name), second.datasets.get(name)
        if one is None or two is None:
            notes.append(f"{name} is left out: it is not complete for both")
        elif first.trains and second.trains and one.seeds != two.seeds:
            notes.append(f"{name} is left out: the seeds differ")
        else:
            shared.append(name)
    if not shared:
        return None
    contests: list[Contest] = []
    overall: list[Contest] = []
    for column in ("worst", "clean", *table.attacks):
        both = [_pair(first, second, name, column) for name in shared]
        single = [_contest(name, column, [hits]) for name, hits in zip(shared, both, strict=True)]
        adjusted = statistics.holm([item.p for item in single])
        contests += [replace(item, adjusted=value) for item, value in zip(single, adjusted, strict=True)]
        overall.append(_contest("", column, both))
    return Comparison(
        table=table,
        first=first.method,
        second=second.method,
        overall=tuple(overall),
        contests=tuple(contests),
        disagreements=tuple(item for name in shared for item in _disagreements(table, first, second, name)),
        notes=tuple(notes),
    )


def worst_differences(table: Table) -> NDArray[np.float64]:
    """Low and high ends of the paired 95 % intervals of row less row, worst case, [rows, rows, 2] as in `ranked`.

    The draws are those that rank the table, so the column of zero-shot repeats the intervals of `Row.gain`.
    """
    rows, seeds = table.ranked, max(len(table.seeds), 1)
    hits = [[row.datasets[name].hits["worst"] for row in rows] for name in table.datasets]
    panel = [statistics.stacked(part, seeds) for part in hits]
    draws = statistics.resampled_means(panel, statistics.resamples_for(len(rows)))
    return np.stack([statistics.interval(draw - draws).T for draw in draws])


def _pair(first: Row, second: Row, dataset: str, column: str) -> NDArray[np.bool_]:
    """Hits of both rows, [2, seeds, samples]; a method without training counts in every seed."""
    hits = [row.datasets[dataset].hits[column] for row in (first, second)]
    return statistics.stacked(hits, max(map(len, hits)))


def _contest(dataset: str, column: str, panel: list[NDArray[np.bool_]]) -> Contest:
    draws = statistics.resampled_means(panel, _DRAWS)
    first, second = statistics.panel_means(panel)
    difference = draws[0] - draws[1]
    low, high = statistics.interval(difference).tolist()
    wins = sum(int((hits[0] & ~hits[1]).sum()) for hits in panel)
    losses = sum(int((hits[1] & ~hits[0]).sum()) for hits in panel)
    one_cell = len(panel) == 1 and panel[0].shape[1] == 1
    p = statistics.mcnemar_p(wins, losses) if one_cell else statistics.bootstrap_p(difference)
    samples = sum(hits.shape[2] for hits in panel)
    return Contest(
        dataset=dataset,
        column=column,
        first=float(first),
        second=float(second),
        difference=Estimate(float(first - second), low, high, samples),
        wins=wins,
        losses=losses,
        pairs=sum(hits[0].size for hits in panel),
        p=p,
        adjusted=p,
    )


def _disagreements(table: Table, first: Row, second: Row, dataset: str) -> list[ContestedSample]:
    pair = _pair(first, second, dataset, "worst")
    hits, seeds = pair.sum(axis=1), pair.shape[1]
    return [
        ContestedSample(dataset, table.ids[dataset][place], int(hits[0, place]), int(hits[1, place]), seeds)
        for place in np.argsort(-np.abs(hits[0] - hits[1]), kind="stable")
        if hits[0, place] != hits[1, place]
    ]
