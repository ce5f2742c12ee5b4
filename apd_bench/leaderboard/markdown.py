"""Boards as Markdown: a heading that says what the numbers are, tables, and a legend that says how to read them."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from apd_bench.leaderboard.aggregate import Row, Table
from apd_bench.leaderboard.columns import (
    EMBEDDED_WARNING,
    estimate_columns,
    interval,
    percent,
    rank_text,
    suspect_text,
    with_interval,
)
from apd_bench.leaderboard.escape import markdown as safe
from apd_bench.leaderboard.statistics import LEVEL


def board_title(tables: Sequence[Table], group: str) -> str:
    """The heading of a board's page."""
    if group == "embedded" or all(table.embedded for table in tables):
        return "apd-bench: embedded suite (tiny CLIP, not ViT-B)"
    return f"apd-bench: {group}"


def render_markdown(tables: Sequence[Table], group: str, notes: Sequence[str] = ()) -> str:
    """The whole page for the tables of one group; the same tables give the same bytes."""
    lines = [f"# {safe(board_title(tables, group))}", ""]
    if any(table.embedded for table in tables):
        lines += [f"**{EMBEDDED_WARNING}**", ""]
    lines += [_provenance(tables), ""]
    for table in tables:
        lines += table_section(table)
    lines += legend(tables, notes)
    return "\n".join(lines).rstrip() + "\n"


def table_section(table: Table) -> list[str]:
    """One table: heading, threat, summary rows, incomplete rows, per-dataset rows, notes."""
    lines = [f"## {safe(heading(table))}", "", f"Threat: {safe(table.key.threat.label, 200)}.", ""]
    lines += [f"{_protocol(table)}", ""]
    if table.ranked:
        lines += [*summary(table), ""]
    if table.incomplete:
        lines += ["Incomplete, not ranked, no mean:", "", *_incomplete(table), ""]
    if any(row.distances for row in table.rows):
        lines += ["Minimal-norm attacks (median distance, never averaged with the table above):", ""]
        lines += [*_distances(table), ""]
    if table.attacks and any(row.datasets for row in table.rows):
        lines += ["Per dataset, worst case over the attacks (clean in brackets):", "", *per_dataset(table), ""]
    notes = [*_row_notes(table), *(safe(note, 300) for note in table.notes)]
    if notes:
        lines += [*(f"- {note}" for note in notes), ""]
    return lines


def heading(table: Table) -> str:
    """Backbone, budget and shots in one line."""
    robust = " (adversarially fine-tuned)" if table.key.training == "robust" else ""
    shots = f", {table.key.shots} shots" if table.key.shots > 0 else ", all images" if table.key.shots < 0 else ""
    return f"{table.key.backbone}{robust}, {table.key.threat.short}{shots}"


def summary(table: Table) -> list[str]:
    """The ranked rows."""
    header = ["rank", "method", "learned", *estimate_columns(table), "H", "samples", "seeds", "cells", "suspect"]
    body = []
    for row in table.ranked:
        values = [
            with_interval(row.estimates.get(name)) if name in ("clean", "worst") else percent(_value(row, name))
            for name in estimate_columns(table)
        ]
        body.append(
            [rank_text(row), safe(row.method), parameters(row), *values, percent(row.harmonic), str(row.samples),
             str(len(row.seeds)) if row.trains else "1", f"{row.done}/{row.planned}", suspect_text(row)]
        )  # fmt: skip
    return grid([safe(name) for name in header], body, left=("method",))


def per_dataset(table: Table) -> list[str]:
    """Worst-case accuracy per dataset with its interval, clean accuracy in brackets."""
    header = ["method", *(f"{safe(name)} (n={table.counts.get(name, 0)})" for name in table.datasets)]
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
        body.append([safe(row.method), *cells])
    return grid(header, body, left=("method",))


def legend(tables: Sequence[Table], notes: Sequence[str] = ()) -> list[str]:
    """How to read the tables."""
    seeds = sorted({seed for table in tables for seed in table.seeds})
    spread = f"seeds {', '.join(map(str, seeds))}" if seeds else "nothing was trained, so there is one seed"
    lines = [
        "## How to read this",
        "",
        "- All numbers are percent of test samples classified correctly. *clean*: without attack; one column per "
        "attack; *worst*: a sample counts only if it survives every attack of the table.",
        "- Each number is a mean over datasets of a mean over seeds and samples. *H* is the harmonic mean of clean and "
        "worst. *learned* counts trained numbers. *samples* counts different test images over all datasets.",
        f"- Intervals are {LEVEL:.0%}: cluster bootstrap over seeds and samples within each dataset (one cell alone: "
        f"Wilson); {spread}. An interval from few seeds is too narrow rather than too wide.",
        "- Rank is one plus the number of methods that are significantly better (paired bootstrap on the same samples, "
        "Holm over all pairs of the table, 5 %); methods that cannot be told apart share a rank.",
        "- *cells* is done / planned (datasets x seeds x attacks). Rows with a gap stand below, unranked and without a "
        "mean. *suspect* counts cells whose diagnostics hint at masked gradients; the reasons stand below the table.",
        "- Threat models, budgets and backbones are never mixed in one table.",
    ]
    lines += [f"- {safe(note, 300)}" for note in notes]
    return lines


def grid(header: Sequence[str], body: Iterable[Sequence[str]], left: Sequence[str] = ()) -> list[str]:
    """A Markdown table of cells that are already safe; columns not named in `left` are right-aligned."""
    rule = [":---" if name in left else "---:" for name in header]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *body)]


def parameters(row: Row) -> str:
    """The number of learned parameters with thousands separated."""
    if not row.trains:
        return "0"
    return "–" if row.parameters is None else f"{row.parameters:,}"


def _value(row: Row, name: str) -> float | None:
    estimate = row.estimates.get(name)
    return None if estimate is None else estimate.value


def _incomplete(table: Table) -> list[str]:
    body = []
    for row in table.incomplete:
        gone = "; ".join(f"{count}x {reason}" for reason, count in row.failed.items())
        body.append([safe(row.method), parameters(row), f"{row.done}/{row.planned}", safe(gone, 160)])
    return grid(["method", "learned", "cells", "failed"], body, left=("method", "failed"))


def _distances(table: Table) -> list[str]:
    body = [
        [
            safe(row.method),
            *(f"{row.distances[name]:.3f}" if name in row.distances else "–" for name in table.distance_attacks),
        ]
        for row in table.rows
    ]
    return grid(["method", *(safe(name) for name in table.distance_attacks)], body, left=("method",))


def _row_notes(table: Table) -> list[str]:
    lines = []
    for row in table.rows:
        lines += [
            f"{safe(row.method)}: suspect in {count} cells: {safe(why, 200)}" for why, count in row.suspect.items()
        ]
        if row.collapsed:
            lines.append(
                f"{safe(row.method)}: {row.collapsed} fits collapsed (clean accuracy near chance), not left out"
            )
        lines += [f"{safe(row.method)}: {safe(note, 200)}" for note in row.notes]
    return lines


def _protocol(table: Table) -> str:
    parts = [f"{name}: {value}" for name, value in table.key.protocol]
    shots = "all training images" if table.key.shots < 0 else f"{table.key.shots} shots per class"
    seeds = f"{shots}, seeds {', '.join(map(str, table.seeds))}" if table.seeds else "nothing trained"
    names = ", ".join(f"{name} ({table.counts.get(name, 0)})" for name in table.datasets)
    return safe(f"{seeds}; {'; '.join(parts)}. Datasets (test samples): {names}.", 2000)


def _provenance(tables: Sequence[Table]) -> str:
    dates = sorted({date for table in tables for date in table.dates})
    commits = sorted({commit[:12] for table in tables for commit in table.commits})
    versions = sorted({version for table in tables for version in table.versions})
    span = "" if not dates else f" of {dates[0]}" if dates[0] == dates[-1] else f" of {dates[0]} to {dates[-1]}"
    made = f"Made by `apd-bench report` from records{span}"
    made += f", apd-bench {safe(', '.join(versions), 200)}" if versions else ""
    made += f", commit {safe(', '.join(commits), 400)}" if commits else ""
    mixed = " **Records of several versions or commits are mixed.**" if len(versions) > 1 or len(commits) > 1 else ""
    return f"{made}.{mixed}"
