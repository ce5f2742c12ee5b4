"""Boards as Markdown: a heading that says what the numbers are, tables, and a legend that says how to read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from apd_bench.leaderboard.columns import (
    cost,
    estimate_columns,
    interval,
    missing_text,
    percent,
    rank_text,
    suspect_text,
    with_interval,
)
from apd_bench.leaderboard.curves import HALVES, base_new_means, few_shot_families
from apd_bench.leaderboard.escape import markdown as safe
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.wording import (
    EMBEDDED_WARNING,
    board_title,
    heading,
    legend_lines,
    notes_of,
    parameters,
    protocol_text,
    provenance_text,
)
from apd_bench.published import pairs


def render_markdown(tables: Sequence[Table], group: str, notes: Sequence[str] = ()) -> str:
    """The whole page for the tables of one group; the same tables give the same bytes."""
    lines = [f"# {safe(board_title(tables, group))}", ""]
    if any(table.embedded for table in tables):
        lines += [f"**{EMBEDDED_WARNING}**", ""]
    lines += [safe(provenance_text(tables), 1000), ""]
    for table in tables:
        lines += table_section(table)
    lines += [*base_to_new_section(tables), *few_shot_section(tables), *reported_section(tables)]
    lines += ["## How to read this", "", *(f"- {safe(line, 600)}" for line in legend_lines(tables, notes))]
    return "\n".join(lines).rstrip() + "\n"


def table_section(table: Table) -> list[str]:
    """One table: heading, threat, summary rows, incomplete rows, per-dataset rows, notes."""
    lines = [f"## {safe(heading(table), 160)}", "", f"Threat: {safe(table.key.threat.label, 200)}.", ""]
    lines += [safe(protocol_text(table), 2000), ""]
    if table.ranked:
        lines += [*summary(table), ""]
    if table.incomplete:
        lines += ["Incomplete, not ranked, no mean:", "", *_incomplete(table), ""]
    if any(row.distances for row in table.rows):
        lines += ["Minimal-norm attacks (median distance, never averaged with the table above):", ""]
        lines += [*_distances(table), ""]
    if table.attacks and any(row.datasets for row in table.rows):
        lines += ["Per dataset, worst case over the attacks (clean in brackets):", "", *per_dataset(table), ""]
    notes = [f"- {safe(note, 300)}" for note in notes_of(table)]
    if notes:
        lines += [*notes, ""]
    return lines


def summary(table: Table) -> list[str]:
    """The ranked rows."""
    names = estimate_columns(table)
    header = ["rank", "method", "learned", *names, "H", "n", "cells", "suspect", "train s", "attack s"]
    body = []
    for row in table.ranked:
        values = [
            with_interval(row.estimates.get(name)) if name in ("clean", "worst") else percent(_value(row, name))
            for name in names
        ]
        body.append(
            [rank_text(row), safe(row.method), parameters(row), *values, percent(row.harmonic),
             f"{row.samples} × {len(row.seeds)}", f"{row.done}/{row.planned}", suspect_text(row),
             cost(row.train_seconds if row.trains else 0.0), cost(row.sample_seconds)]
        )  # fmt: skip
    return grid([safe(name) for name in header], body, left=("method",))


def per_dataset(table: Table) -> list[str]:
    """Worst-case accuracy per dataset with its interval, clean accuracy in brackets, and the mean of complete rows."""
    header = ["method", *(f"{safe(name)} (n={table.counts.get(name, 0)})" for name in table.datasets), "mean"]
    body = []
    for row in table.rows:
        cells = []
        for name in table.datasets:
            result = row.datasets.get(name)
            if result is None:
                cells.append("–")
                continue
            part = "" if len(result.seeds) == len(row.seeds) else f" {len(result.seeds)}/{len(row.seeds)} seeds"
            worst, clean = result.estimates["worst"], result.estimates["clean"]
            cells.append(f"{percent(worst.value)} ({interval(worst, 0)}) [{percent(clean.value)}]{part}")
        mean = f"{percent(_value(row, 'worst'))} [{percent(_value(row, 'clean'))}]" if row.complete else "–"
        body.append([safe(row.method), *cells, mean])
    return grid(header, body, left=("method",))


def base_to_new_section(tables: Sequence[Table]) -> list[str]:
    """Base and new classes side by side with their harmonic mean, for methods that are complete on both."""
    lines: list[str] = []
    for title, means in base_new_means(tables):
        body = [[safe(method), *(percent(value) for value in values)] for method, values in means]
        lines += [f"## {safe(title)}", "", *grid(["method", *HALVES], body, ("method",)), ""]
    return lines


def few_shot_section(tables: Sequence[Table]) -> list[str]:
    """Worst-case accuracy by the number of shots, where several were measured."""
    lines: list[str] = []
    for family in few_shot_families(tables):
        shots = [table.key.shots for table in family]
        methods = sorted({row.method for table in family for row in table.rows})
        rows = {(table.key.shots, row.method): row for table in family for row in table.ranked}
        body = []
        for method in methods:
            found = [rows.get((count, method)) for count in shots]
            cells = [
                f"{percent(_value(row, 'worst'))} [{percent(_value(row, 'clean'))}]" if row else "–" for row in found
            ]
            body.append([safe(method), *cells])
        header = ["method", *("all" if count < 0 else f"{count} shots" for count in shots)]
        title = heading(replace(family[0], key=replace(family[0].key, shots=0)))
        lines += [f"## Few-shot curve: {safe(title)}", "", "Worst case, clean in brackets:", ""]
        lines += [*grid(header, body, ("method",)), ""]
    return lines


def reported_section(tables: Sequence[Table]) -> list[str]:
    """Published beside measured numbers, only where protocol, backbone, budget and attack agree."""
    found = [pair for table in tables for pair in pairs(table)]
    if not found:
        return []
    body = []
    for pair in found:
        place = [safe(pair.method), safe(pair.dataset), safe(pair.column)]
        numbers = [f"{pair.published.value:g}", with_interval(pair.measured), f"{pair.difference:+.1f}"]
        source = f"{pair.published.source}, {pair.published.table}"
        body.append([*place, *numbers, safe(source), safe(pair.deviation, 200)])
    header = ["method", "dataset", "column", "reported", "reproduced", "difference", "source", "known to differ"]
    left = ("method", "dataset", "column", "source", "known to differ")
    return ["## Reported and reproduced", "", *grid(header, body, left), ""]


def grid(header: Sequence[str], body: Iterable[Sequence[str]], left: Sequence[str] = ()) -> list[str]:
    """A Markdown table of cells that are already safe; columns not named in `left` are right-aligned."""
    rule = [":---" if name in left else "---:" for name in header]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *body)]


def _value(row: Row, name: str) -> float | None:
    estimate = row.estimates.get(name)
    return None if estimate is None else estimate.value


def _incomplete(table: Table) -> list[str]:
    body = []
    for row in table.incomplete:
        gone = "; ".join(f"{count}x {reason}" for reason, count in row.failed.items())
        cells = f"{row.done}/{row.planned}"
        body.append([safe(row.method), parameters(row), cells, safe(missing_text(row), 160), safe(gone, 160)])
    return grid(["method", "learned", "cells", "missing", "failed"], body, left=("method", "missing", "failed"))


def _distances(table: Table) -> list[str]:
    body = [
        [
            safe(row.method),
            *(f"{row.distances[name]:.3f}" if name in row.distances else "–" for name in table.distance_attacks),
        ]
        for row in table.rows
    ]
    return grid(["method", *(safe(name) for name in table.distance_attacks)], body, left=("method",))
