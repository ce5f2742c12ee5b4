"""Tables of plain text beside the boards, the same in Markdown and on the page."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from apd_bench.core.specs import format_eps
from apd_bench.leaderboard.columns import percent, with_interval
from apd_bench.leaderboard.curves import base_new_pairs, eps_families, few_shot_families
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.published import reproductions
from apd_bench.leaderboard.statistics import harmonic_mean
from apd_bench.leaderboard.wording import heading

_BUDGETS = 3  # so many make a curve


@dataclass(frozen=True)
class Listing:
    """A title, a line that says what the numbers are, and cells as text; the columns named in `left` are words."""

    title: str
    caption: str
    header: tuple[str, ...]
    body: tuple[tuple[str, ...], ...]
    left: tuple[str, ...] = ("method",)


def listings(tables: Sequence[Table]) -> list[Listing]:
    """All that several tables of one group say together."""
    return [*_base_to_new(tables), *_few_shot(tables), *_over_budgets(tables), *_reported(tables)]


def distances(table: Table) -> Listing | None:
    """The median distances of minimal-norm attacks, which are no part of any mean; None where there are none."""
    body = tuple(
        (
            row.method,
            *(f"{row.distances[name]:.3f}" if name in row.distances else "–" for name in table.distance_attacks),
        )
        for row in table.rows
    )
    caption = "Minimal-norm attacks (median distance, never averaged with the table above)"
    return Listing("", caption, ("method", *table.distance_attacks), body) if table.distance_attacks else None


def worst_and_clean(row: Row | None) -> str:
    """`25.6 [79.8]`, or a dash for a row that has no means."""
    if row is None or not row.complete:
        return "–"
    return f"{percent(row.estimates['worst'].value)} [{percent(row.estimates['clean'].value)}]"


def _base_to_new(tables: Sequence[Table]) -> Iterator[Listing]:
    """Base and new classes side by side with their harmonic mean, for methods that are complete on both, best first."""
    header = ("method", "base clean", "new clean", "H clean", "base worst", "new worst", "H worst")
    for base, new in base_new_pairs(tables):
        others = {row.method: row.estimates for row in new.ranked}
        lines = []
        for row in base.ranked:
            if row.method in others:
                halves = [(row.estimates[name].value, others[row.method][name].value) for name in ("clean", "worst")]
                lines.append((row.method, [value for both in halves for value in (*both, harmonic_mean(*both))]))
        lines.sort(key=lambda line: (-line[1][-1], line[0]))
        title = f"{heading(base, new)}: harmonic means"
        body = tuple((method, *map(percent, values)) for method, values in lines)
        yield Listing(title, "Percent; H: harmonic mean of base and new classes", header, body)


def _few_shot(tables: Sequence[Table]) -> Iterator[Listing]:
    """Accuracy by the number of shots, where several were measured."""
    for family in few_shot_families(tables):
        rows = {(table.key.shots, row.method): row for table in family for row in table.ranked}
        shots = [table.key.shots for table in family]
        header = ("method", *("all" if count < 0 else f"{count} shots" for count in shots))
        methods = sorted({row.method for table in family for row in table.rows})
        body = tuple((method, *(worst_and_clean(rows.get((count, method))) for count in shots)) for method in methods)
        yield Listing(f"Few-shot curve: {heading(*family)}", "Worst case, clean in brackets", header, body)


def _over_budgets(tables: Sequence[Table]) -> Iterator[Listing]:
    """The worst case by budget and its mean over them, where there are three or more, best mean first."""
    for family in eps_families(tables):
        rows = [{row.method: row.estimates["worst"].value for row in table.ranked} for table in family]
        shares = {name: [row[name] for row in rows] for name in set.intersection(*map(set, rows))}
        means = {name: sum(values) / len(values) for name, values in shares.items()}
        if len(family) < _BUDGETS or not shares:
            continue
        header = ("method", *(format_eps(table.key.threat.eps, table.key.threat.norm) for table in family), "mean")
        order = sorted(means, key=lambda name: (-means[name], name))
        body = tuple((name, *map(percent, (*shares[name], means[name]))) for name in order)
        caption = "Worst case in percent and its mean over the budgets: the area under the curve"
        yield Listing(f"Over the budgets: {heading(*family)}", caption, header, body)


def _reported(tables: Sequence[Table]) -> Iterator[Listing]:
    """Published beside measured numbers, only where protocol, backbone, budget and attack agree."""
    left = ("method", "dataset", "column", "source", "known to differ")
    header = ("method", "dataset", "column", "reported", "reproduced", "difference", "source", "known to differ")
    body = tuple(
        (
            item.method, item.dataset, item.column, f"{item.published.value:g}", with_interval(item.measured),
            f"{item.difference:+.1f}", f"{item.published.source}, {item.published.table}", item.deviation,
        )
        for table in tables
        for item in reproductions(table)
    )  # fmt: skip
    if body:
        yield Listing("Reported and reproduced", "Percent, means over seeds", header, body, left)
