"""A plan as text: every cell, or for a terminal the counts by method and set with the first cells of each state."""

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass

from apd_bench.core.specs import Cell
from apd_bench.core.text import table
from apd_bench.runner.plan import Plan

_FIRST = 3  # cells that are named for each state


@dataclass(frozen=True)
class PlanLine:
    """A cell of a plan with its state: "to do", "impossible", "left out", or the status of its record."""

    cell: Cell
    state: str
    reason: str = ""

    @property
    def text(self) -> tuple[str, str, str]:
        """Id, state, and what it is."""
        return self.cell.id, self.state, f"{self.cell.label}: {self.reason}" if self.reason else self.cell.label


def rows_of(grid: Plan, statuses: Mapping[str, str], wanted: set[str]) -> list[PlanLine]:
    """All cells of a plan, `wanted` being the ids of those that would be worked on; the impossible ones last."""
    rows = [PlanLine(cell, "to do" if cell.id in wanted else statuses.get(cell.id, "left out")) for cell in grid.cells]
    return rows + [PlanLine(item.cell, "impossible", item.reason) for item in grid.impossible]


def whole(rows: list[PlanLine]) -> str:
    """Every cell on a line of its own."""
    return table([row.text for row in rows], ("cell", "state", "what"))


def summary(rows: list[PlanLine], width: int) -> str:
    """Counts by method and set, then the first cells of each state; no line is longer than `width`."""
    lines = [*_counts(rows, width), ""]
    for state, number in Counter(row.state for row in rows).items():
        first = [row for row in rows if row.state == state][:_FIRST]
        rest = f", the first {len(first)}" if number > len(first) else ""
        lines += [f"{state}: {number}{rest}", *(f"  {row.text[0]}  {row.text[2]}" for row in first)]
    return "\n".join(line if len(line) <= width else f"{line[: width - 1]}…" for line in lines)


def _counts(rows: list[PlanLine], width: int) -> list[str]:
    """A table of "done of planned": methods by sets, or where that is too wide, methods alone and sets alone."""
    several = len({row.cell.fit.backbone.name for row in rows}) > 1
    done: Counter[tuple[str, str]] = Counter()
    planned: Counter[tuple[str, str]] = Counter()
    for row in rows:
        method = row.cell.fit.method.name + (f" {row.cell.fit.backbone.name}" if several else "")
        for key in ((method, row.cell.dataset.name), (method, ""), ("", row.cell.dataset.name)):
            planned[key] += row.state != "impossible"
            done[key] += row.state == "success"

    def text(key: tuple[str, str]) -> str:
        return f"{done[key]}/{planned[key]}" if planned[key] else "-"

    methods = list(dict.fromkeys(method for method, _ in planned if method))
    sets = list(dict.fromkeys(name for _, name in planned if name))
    matrix = table([(method, *(text((method, name)) for name in sets)) for method in methods], ("done of", *sets))
    lines = matrix.splitlines()
    if max(map(len, lines)) <= width:
        return lines
    by_method = table([(method, text((method, ""))) for method in methods], ("method", "done of"))
    by_set = table([(name, text(("", name))) for name in sets], ("set", "done of"))
    return [*by_method.splitlines(), "", *by_set.splitlines()]
