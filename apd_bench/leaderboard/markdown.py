"""Boards as Markdown: a heading that says what the numbers are, tables, and a legend that says how to read them."""

from collections.abc import Iterable, Sequence

from apd_bench.leaderboard.columns import interval, percent, table_columns
from apd_bench.leaderboard.escape import markdown_text as safe
from apd_bench.leaderboard.listings import Listing, distances, listings, worst_and_clean
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.wording import (
    EMBEDDED_WARNING,
    board_title,
    heading,
    legend_lines,
    notes_of,
    protocol_text,
    provenance_text,
    threat_text,
)


def render_markdown(tables: Sequence[Table], group: str, notes: Sequence[str] = ()) -> str:
    """The whole page for the tables of one group; the same tables give the same bytes."""
    lines = [f"# {safe(board_title(tables, group))}", ""]
    if any(table.embedded for table in tables):
        lines += [f"**{EMBEDDED_WARNING}**", ""]
    lines += [safe(provenance_text(tables), 1000), ""]
    for table in tables:
        lines += table_section(table)
    for listing in listings(tables):
        lines += [f"## {safe(listing.title, 160)}", "", *listing_grid(listing)]
    lines += ["## How to read this", "", *(f"- {safe(line, 600)}" for line in legend_lines(tables, "md", notes))]
    return "\n".join(lines).rstrip() + "\n"


def table_section(table: Table) -> list[str]:
    """One table: heading, threat, summary rows, incomplete rows, per-dataset rows, notes."""
    lines = [f"## {safe(heading(table), 160)}", "", safe(threat_text(table.key.threat), 200), ""]
    lines += [safe(protocol_text(table), 2000), ""]
    if table.ranked:
        lines += [*row_grid(table, table.ranked, "md"), ""]
    if table.incomplete:
        lines += ["Incomplete, not ranked, no mean:", "", *row_grid(table, table.incomplete, "gaps"), ""]
    if (listing := distances(table)) is not None:
        lines += listing_grid(listing)
    if table.attacks and any(row.datasets for row in table.rows):
        lines += ["Per dataset, worst case over the attacks (clean in brackets):", "", *per_dataset(table), ""]
    notes = [f"- {safe(note, 300)}" for note in notes_of(table)]
    if notes:
        lines += [*notes, ""]
    return lines


def row_grid(table: Table, rows: Sequence[Row], form: str) -> list[str]:
    """`rows` in the columns of the format `form`."""
    columns = table_columns(table.attacks, form)
    body = [[safe(column.shown(table, row, form), 160) for column in columns] for row in rows]
    left = [safe(column.heading) for column in columns if column.left]
    return grid([safe(column.heading) for column in columns], body, left)


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
        body.append([safe(row.method), *cells, worst_and_clean(row)])
    return grid(header, body, left=("method",))


def listing_grid(listing: Listing) -> list[str]:
    """A line that says what the numbers are, and the table."""
    body = [[safe(cell, 200) for cell in line] for line in listing.body]
    return [f"{safe(listing.caption)}:", "", *grid([safe(name) for name in listing.header], body, listing.left), ""]


def grid(header: Sequence[str], body: Iterable[Sequence[str]], left: Sequence[str] = ()) -> list[str]:
    """A Markdown table of cells that are already safe; columns not named in `left` are right-aligned."""
    rule = [":---" if name in left else "---:" for name in header]
    return [f"| {' | '.join(cells)} |" for cells in (header, rule, *body)]
