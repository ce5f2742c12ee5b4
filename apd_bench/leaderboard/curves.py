"""Tables that belong together: the same comparison at other budgets, shots, or on the other half of the classes."""

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import replace
from itertools import accumulate
from typing import NamedTuple

from apd_bench.leaderboard.model import Row, Table, TableKey


class Point(NamedTuple):
    """One method at one budget (or number of shots): share with interval edges, None where unknown."""

    at: float
    value: float
    low: float | None
    high: float | None


def eps_families(tables: Sequence[Table]) -> list[list[Table]]:
    """Tables that differ in eps only, smallest first, with the same datasets; families of one are kept."""
    return _families(tables, lambda key: replace(key, threat=replace(key.threat, eps=0.0)), lambda key: key.threat.eps)


def few_shot_families(tables: Sequence[Table]) -> list[list[Table]]:
    """Tables of the few-shot task that differ in shots only, fewest first ("all images" last); at least two."""
    chosen = [table for table in tables if table.key.task == "few_shot" and table.key.shots != 0]
    made = _families(chosen, lambda key: replace(key, shots=0), lambda key: key.shots if key.shots > 0 else 1e9)
    return [family for family in made if len(family) > 1]


def base_new_pairs(tables: Sequence[Table]) -> list[tuple[Table, Table]]:
    """The base and the new half of the base-to-new tables that differ in nothing else."""
    chosen = [table for table in tables if table.key.task == "base_to_new"]
    families = _families(chosen, lambda key: replace(key, classes=""), lambda key: float(key.classes == "new"))
    halves = [{table.key.classes: table for table in family} for family in families]
    return [(both["base"], both["new"]) for both in halves if both.keys() >= {"base", "new"}]


def eps_curve(family: Sequence[Table], method: str) -> list[Point]:
    """Worst-case accuracy of `method` against eps * 255; clean accuracy at 0 where that budget was not measured."""
    points = _curve(family, method, "worst", lambda key: key.threat.eps * 255)
    clean = _curve(family, method, "clean", lambda _: 0.0)[:1]
    return [*clean, *points] if points and points[0].at > 0 else points


def shots_curve(family: Sequence[Table], method: str) -> list[Point]:
    """Worst-case accuracy of `method` against shots per class; all images are no number of shots."""
    return [point for point in _curve(family, method, "worst", lambda key: float(key.shots)) if point.at > 0]


def pareto_front(rows: Sequence[Row]) -> list[str]:
    """The methods that no other beats in clean and worst-case accuracy at once, by falling clean accuracy."""
    points = sorted(
        ((row.estimates["clean"].value, row.estimates["worst"].value, row.method) for row in rows), reverse=True
    )
    before = [-1.0, *accumulate((worst for _, worst, _ in points), max)]  # the best among those that are cleaner
    return [method for (_, worst, method), best in zip(points, before, strict=False) if worst > best]


def _curve(family: Sequence[Table], method: str, column: str, at: Callable[[TableKey], float]) -> list[Point]:
    rows = [(at(table.key), row.estimates[column]) for table in family for row in table.ranked if row.method == method]
    return [Point(place, estimate.value, estimate.low, estimate.high) for place, estimate in rows]


def _families(
    tables: Sequence[Table], same: Callable[[TableKey], TableKey], place: Callable[[TableKey], float]
) -> list[list[Table]]:
    groups: dict[tuple[TableKey, tuple[str, ...]], list[Table]] = defaultdict(list)
    for table in tables:  # a mean over other datasets is another quantity
        groups[(same(table.key), table.datasets)].append(table)
    return [sorted(group, key=lambda table: place(table.key)) for group in groups.values()]
