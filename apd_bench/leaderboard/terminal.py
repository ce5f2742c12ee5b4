"""The tables for a terminal: rich and narrow on a screen, plain Markdown in a pipe."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console
from rich.table import Table as Grid
from rich.text import Text

from apd_bench.leaderboard.boards import Boards
from apd_bench.leaderboard.columns import interval, percent, rank_text, suspect_text
from apd_bench.leaderboard.escape import plain
from apd_bench.leaderboard.markdown import table_section
from apd_bench.leaderboard.model import Row, Table
from apd_bench.leaderboard.wording import EMBEDDED_WARNING, heading, notes_of, parameters

_SHORT = {"autoattack": "AA"}


def render_terminal(boards: Boards, console: Console | None = None) -> None:
    """Prints every table of `boards`; a console that is not a terminal gets Markdown."""
    console = console or Console()
    if not console.is_terminal:
        for table in boards.tables:
            if table.embedded:
                console.print(EMBEDDED_WARNING, markup=False, highlight=False, soft_wrap=True)
            for line in table_section(table):
                console.print(line, markup=False, highlight=False, soft_wrap=True)
        return
    for table in boards.tables:
        console.print(_grid(table, console.width))
        for line in _footer(table):
            console.print(Text(line, style="dim"))
        console.print()


def _grid(table: Table, width: int) -> Grid:
    title = f"{plain(heading(table))} · accuracy in % · mean over {len(table.datasets)} datasets"
    grid = Grid(title=Text(title), title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    attacks = list(table.attacks)
    wide = width >= 62 + 6 * len(attacks)
    grid.add_column("#", justify="right")
    grid.add_column("method", justify="left", overflow="fold")
    if wide:
        grid.add_column("learned", justify="right", no_wrap=True)
    for name in ("clean", *(_SHORT.get(attack, plain(attack, 14)) for attack in attacks)):
        grid.add_column(Text(name), justify="right")
    grid.add_column("worst", justify="right", no_wrap=True, style="bold")
    grid.add_column("95 %", justify="right", no_wrap=True)
    if wide:
        grid.add_column("H", justify="right", no_wrap=True)
    grid.add_column("n", justify="right", no_wrap=True)
    grid.add_column("cells", justify="right", no_wrap=True)
    for row in table.rows:
        grid.add_row(*_cells(row, attacks, wide), style="" if row.complete else "dim")
    return grid


def _cells(row: Row, attacks: Sequence[str], wide: bool) -> list[Text]:
    def share(name: str) -> str:
        return percent(row.estimates[name].value) if name in row.estimates else "–"

    middle = [share(name) for name in ("clean", *attacks, "worst")]
    samples = f"{row.samples}×{len(row.seeds)}" if row.complete else "–"
    mark = f" {suspect_text(row)}" if suspect_text(row) else ""
    values = [rank_text(row), plain(row.method, 40) + mark]
    values += [parameters(row)] if wide else []
    values += [*middle, interval(row.estimates.get("worst"), 0)]
    values += [percent(row.harmonic)] if wide else []
    return [Text(value) for value in (*values, samples, f"{row.done}/{row.planned}")]


def _footer(table: Table) -> list[str]:
    lines = [
        f"Threat: {table.key.threat.label}.",
        "worst: a sample counts only if it survives every attack; n: test samples × seeds;",
    ]
    lines.append("95 %: bootstrap interval of worst; rows that cannot be told apart share a rank (#).")
    if any(name in table.attacks for name in _SHORT):
        lines.append("AA: autoattack.")
    if table.incomplete:
        lines.append("Rows with a gap in their cells have no rank and no mean.")
    lines += [f"⚠ {plain(note, 160)}" for note in notes_of(table)]
    if table.embedded:
        lines.append(EMBEDDED_WARNING)
    return lines
