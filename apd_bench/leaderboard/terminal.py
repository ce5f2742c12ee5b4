"""The tables for a terminal: rich and narrow on a screen, plain Markdown in a pipe."""

from rich.console import Console, JustifyMethod
from rich.table import Table as Grid
from rich.text import Text

from apd_bench.core.text import plain
from apd_bench.leaderboard.boards import Boards
from apd_bench.leaderboard.columns import Column, table_columns
from apd_bench.leaderboard.markdown import table_section
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.wording import EMBEDDED_WARNING, heading, legend_lines, notes_of, threat_text

_SHORT = {"autoattack": "AA", "suspect": "⚠"}


def render_terminal(boards: Boards, console: Console | None = None) -> None:
    """Prints every table of `boards`, then the legend; a console that is not a terminal gets Markdown."""
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
    short = " ".join(f"{sign}: {title}." for title, sign in _SHORT.items())
    for line in [*legend_lines(boards.tables, "terminal"), short] if boards.tables else ():
        console.print(Text(line, style="dim"))


def _grid(table: Table, width: int) -> Grid:
    """The table; where it is narrow, without what can be spared, and always without columns in which nothing stands."""
    title = f"{plain(heading(table))} · accuracy in % · mean over {len(table.datasets)} datasets"
    grid = Grid(title=Text(title), title_justify="left", box=None, padding=(0, 1, 0, 0), pad_edge=False)
    lines = []
    for column, texts in _fitting(table, width):
        justify: JustifyMethod = "left" if column.left else "right"
        grid.add_column(Text(texts[0]), justify=justify, overflow="fold", no_wrap=not column.left)
        lines.append(texts[1:])
    for row, *texts in zip(table.rows, *lines, strict=True):
        grid.add_row(*map(Text, texts), style="" if row.complete else "dim")
    return grid


def _fitting(table: Table, width: int) -> list[tuple[Column, list[str]]]:
    """The columns with their texts, the heading first; of those that can be spared, as many as there is room for."""
    columns = []
    for column in table_columns(table.attacks, "terminal"):
        texts = [plain(column.shown(table, row, "terminal"), 40) for row in table.rows]
        if any(texts):
            columns.append((column, [_SHORT.get(column.heading, plain(column.heading, 14)), *texts]))
    sizes = [1 + max(map(len, texts)) for _, texts in columns]
    room = width - sum(size for size, (column, _) in zip(sizes, columns, strict=True) if column.narrow)
    shown = {place for place, (column, _) in enumerate(columns) if column.narrow}
    for place in sorted(range(len(columns)), key=sizes.__getitem__):
        if place not in shown and sizes[place] <= room:
            shown.add(place)
            room -= sizes[place]
    return [item for place, item in enumerate(columns) if place in shown]


def _footer(table: Table) -> list[str]:
    lines = [threat_text(table.key.threat), *(f"⚠ {plain(note, 160)}" for note in notes_of(table))]
    return [*lines, EMBEDDED_WARNING] if table.embedded else lines
