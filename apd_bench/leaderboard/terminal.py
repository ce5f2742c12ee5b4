"""The tables for a terminal: rich and narrow on a screen, plain Markdown in a pipe."""

from collections.abc import Iterable, Sequence

from rich.console import Console, JustifyMethod
from rich.table import Table as Grid
from rich.text import Text

from apd_bench.core.text import counted, plain
from apd_bench.leaderboard.boards import Boards
from apd_bench.leaderboard.columns import Column, table_columns
from apd_bench.leaderboard.defences import defence_grid, defence_section
from apd_bench.leaderboard.escape import markdown_text
from apd_bench.leaderboard.markdown import grid as markdown_grid
from apd_bench.leaderboard.markdown import table_section
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.wording import EMBEDDED_WARNING, heading, notes_of, threat_text

_COLUMNS = "What the columns mean: apd-bench help columns"


def render_terminal(boards: Boards, console: Console | None = None) -> None:
    """Prints every table of `boards`; a console that is not a terminal gets Markdown."""
    console = console or Console()
    if not console.is_terminal:
        lines = [EMBEDDED_WARNING] if any(table.embedded for table in boards.tables) else []
        for table in boards.tables:
            lines += table_section(table)
        for defended in boards.defences:
            lines += defence_section(defended)
        _print_lines([*lines, _COLUMNS] if lines else [], console)
        return
    for number, table in enumerate(boards.tables):
        console.print("\n" if number else "", end="")
        title = f"{plain(heading(table))} · percent, mean over {counted(len(table.datasets), 'dataset')}"
        console.print(Text(title, style="italic"))
        console.print(_grid(table, console.width))
        notes = (f"⚠ {plain(note, 160)}" for note in notes_of(table))
        for line in (threat_text(table.key.threat), *notes, *([EMBEDDED_WARNING] if table.embedded else ())):
            console.print(Text(line, style="dim"))
    for defended in boards.defences:
        console.print()
        console.print(Text(f"Test-time defences: {defended.title}, {defended.threat.label}"))
        header, body = defence_grid(defended)
        render_grid(header, body, ("defence", "method"), console)
    if boards.tables:
        console.print(Text(_COLUMNS, style="dim"))


def render_grid(
    header: Sequence[str], body: Sequence[Sequence[str]], left: Sequence[str] = (), console: Console | None = None
) -> None:
    """Prints one table, with the columns in `left` aligned to the left; in a pipe as Markdown.

    Where a terminal is too narrow, the other columns stand below one another in blocks, each beside those of `left`.
    """
    console = console or Console()
    if not console.is_terminal:
        cells = [[markdown_text(cell) for cell in row] for row in (header, *body)]
        _print_lines(markdown_grid(cells[0], cells[1:], [markdown_text(name) for name in left]), console)
        return
    sizes = [1 + max(len(plain(row[place])) for row in (header, *body)) for place in range(len(header))]
    fixed = [place for place, name in enumerate(header) if name in left]
    room = console.width + 1 - sum(sizes[place] for place in fixed)
    blocks: list[list[int]] = [[]]
    for place in (place for place in range(len(header)) if place not in fixed):
        if blocks[-1] and sum(sizes[other] for other in (*blocks[-1], place)) > room:
            blocks.append([])
        blocks[-1].append(place)
    for number, block in enumerate(blocks):
        console.print("\n" if number else "", end="")
        places = sorted([*fixed, *block])
        grid = Grid(box=None, padding=(0, 1, 0, 0), pad_edge=False)
        for place in places:
            side: JustifyMethod = "left" if place in fixed else "right"
            grid.add_column(Text(plain(header[place])), justify=side, overflow="fold", no_wrap=place not in fixed)
        for row in body:
            grid.add_row(*(Text(plain(row[place])) for place in places))
        console.print(grid)


def _print_lines(lines: Iterable[str], console: Console) -> None:
    for line in lines:
        console.print(line, markup=False, highlight=False, soft_wrap=True)


def _grid(table: Table, width: int) -> Grid:
    """The table; where it is narrow, without what can be spared, and always without columns in which nothing stands."""
    grid = Grid(box=None, padding=(0, 1, 0, 0), pad_edge=False)
    lines = []
    for column, texts in _fitting(table, width):
        justify: JustifyMethod = "left" if column.left else "right"
        numbers = 0 if column.left else max(map(len, texts[1:]))  # headings may fold, numbers may not
        grid.add_column(Text(texts[0]), justify=justify, overflow="fold", min_width=numbers)
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
            columns.append((column, [plain(column.heading, 14), *texts]))
    sizes = [1 + max(map(len, texts)) for _, texts in columns]
    room = width - sum(size for size, (column, _) in zip(sizes, columns, strict=True) if column.narrow)
    shown = {place for place, (column, _) in enumerate(columns) if column.narrow}
    for place in sorted(range(len(columns)), key=sizes.__getitem__):
        if place not in shown and sizes[place] <= room:
            shown.add(place)
            room -= sizes[place]
    return [item for place, item in enumerate(columns) if place in shown]
