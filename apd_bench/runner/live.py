"""The live view of a run on a terminal: the table as it fills, what is running, speed and time left."""

import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress

import numpy as np
from numpy.typing import NDArray
from rich.console import Console, ConsoleRenderable, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from apd_bench.core.errors import UserError
from apd_bench.core.registry import ATTACKS
from apd_bench.core.specs import Cell, Fit
from apd_bench.core.text import printable
from apd_bench.records.measured import Measured
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.store import Store
from apd_bench.runner.estimate import cost_of
from apd_bench.runner.plan import Plan
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.report import RunReport
from apd_bench.runner.reporter import Reporter, closing, duration, opening
from apd_bench.runner.running import Names, Running, cost_of_task
from apd_bench.runner.tasks import Failure, FitDone, Progress, Result, Stopped, Task

Key = tuple[str, str]  # the row and the set of a cell
Hits = NDArray[np.bool_]
_LABEL = 30  # characters of a row's name at most
_NUMBERS = 30  # of the columns of numbers
_STATES = {"green": "█", "yellow": "▒", "red": "!", "dim": "·"}
_NOTE = "clean and worst in %, of what is measured so far"


class LiveReporter(Reporter):
    """Draws on standard error, four times a second, whatever the size of the terminal is at that moment.

    `store` has the outcomes of the cells that are done when the run begins.
    """

    def __init__(self, console: Console | None = None, store: Store | None = None) -> None:
        self.console, self._store = console or Console(stderr=True), store
        self._report, self._began, self.running = RunReport(), time.monotonic(), Running()
        self._total, self._done, self._bad = Counter[Key](), Counter[Key](), Counter[Key]()
        self._cost_done = self._cost_total = self._passes = 0.0
        self._live = _Resizable(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )

    def prepare(self) -> None:
        """Says that something goes on: loading takes seconds."""
        self.console.print("starting ...", style="dim", highlight=False)

    def start(self, report: RunReport, queue: WorkQueue, plan: Plan) -> None:
        """Draws the table; of fits, where no cell is to be measured."""
        self._report, self._began, self._names, self.running = report, time.monotonic(), Names(plan), Running()
        self._standings = Standings(self._names.row)
        self._total, self._done, self._bad = Counter[Key](), Counter[Key](), Counter[Key]()
        self._cost_done = self._cost_total = self._passes = 0.0
        for line in opening(report):
            self.message(line)
        if not len(queue):
            return
        todo = {item.id for item in (queue.cells() if report.to_do else queue.fits())}
        things: list[Cell | Fit] = [*(plan.cells if report.to_do else plan.fits.values())]
        for item in things:
            self._total[self._key(item)] += 1
            self._done[self._key(item)] += item.id not in todo
            if isinstance(item, Cell) and item.id not in todo and self._store is not None:
                with suppress(UserError, OSError):
                    self._standings.add(item, None, self._store.outcomes(item.id))
        self._cost_total = sum(map(cost_of, queue.cells())) + sum(map(cost_of, queue.fits()))
        self._live.start()

    def task_started(self, task: Task) -> None:
        self.running.begin(task)

    def task_finished(self, task: Task, result: Result) -> None:
        """Colours its cell, or its fit where only fits are shown."""
        self.running.end(task)
        self._cost_done += 0 if isinstance(result, Stopped) else cost_of_task(task)
        if task.cell is not None or not self._report.to_do:
            key = self._key(task.cell or task.fit)
            self._done[key] += self._whole(task, result)
            self._bad[key] += isinstance(result, Failure)
        if isinstance(result, Measured) and task.cell is not None:
            self._passes += float(result.timing.get("forwards") or 0) + float(result.timing.get("backwards") or 0)
            self._standings.add(task.cell, task.shard, result.outcomes)
        if isinstance(result, Failure):
            self.message(f"failed: {self._names.task(task)}: {result.message}")

    def tick(self, progress: Mapping[str, Progress]) -> None:
        self.running.tick(progress)

    def message(self, text: str) -> None:
        self.console.print(printable(text), highlight=False, markup=False)

    def finish(self, report: RunReport) -> None:
        self._live.stop()
        for line in closing(report):
            self.message(line)

    def render(self) -> RenderableType:
        """The whole view of this moment, no larger than the terminal."""
        room = max(self.console.height - 2, 3)  # the footer, and the line that the cursor is on
        running = self._tasks()[: max(room // 3, 1)]
        return Group(self._grid(room - len(running)), *running, self._footer())

    def _grid(self, room: int) -> RenderableType:
        """For each row what is measured so far, the cells that are done and, where there is room, a sign a set."""
        rows = list(dict.fromkeys(key[0] for key in self._total))
        sets = list(dict.fromkeys(key[1] for key in self._total))
        table = Table(box=None, padding=(0, 2, 0, 0))
        label = min(max(map(len, ("method", *rows))), _LABEL, max(self.console.width - _NUMBERS, 6))
        signs = [f"{len(sets)} datasets"] if self.console.width - label - _NUMBERS >= max(len(sets), 12) else []
        table.add_column("method", width=label, no_wrap=True, overflow="ellipsis")
        for name in ("clean", "worst", "cells" if self._report.to_do else "fits"):
            table.add_column(name, justify="right", no_wrap=True, min_width=5)
        for title in signs:
            table.add_column(title, no_wrap=True)
        shown, hidden = self._rows(rows, room - 1)
        for row in shown:
            keys = [(row, name) for name in sets]
            shares = self._standings.shares(row)
            numbers = ("", "") if shares is None else tuple(f"{100 * share:.1f}" for share in shares)
            more = [Text.assemble(*map(self._sign, keys))] if signs else []
            table.add_row(Text(printable(row)), *numbers, self._square(keys), *more)
        if hidden:
            rest = self._square([(row, name) for row in hidden for name in sets])
            table.add_row(f"{len(hidden)} more", "", "", rest)
        return table

    def _rows(self, rows: list[str], room: int) -> tuple[list[str], list[str]]:
        """The rows that there is room for, those first on which something goes on, and the others."""
        if len(rows) <= room:
            return rows, []
        active = {self._key(task.cell or task.fit)[0] for task in list(self.running.tasks.values())}

        def rank(row: str) -> tuple[bool, bool]:
            keys = [key for key in self._total if key[0] == row]
            return row not in active, all(self._done[key] == self._total[key] for key in keys)

        chosen = set(sorted(rows, key=rank)[: max(room - 1, 1)])
        return [item for item in rows if item in chosen], [item for item in rows if item not in chosen]

    def _square(self, keys: list[Key]) -> Text:
        total, done, bad = (sum(counts[key] for key in keys) for counts in (self._total, self._done, self._bad))
        style = "red" if bad else "green" if done == total else "dim" if done == 0 else "yellow"
        return Text(f"{done}/{total}" + (f" {bad}!" if bad else ""), style=style) if total else Text("")

    def _sign(self, key: Key) -> Text:
        style = str(self._square([key]).style)
        return Text(_STATES.get(style, " "), style=style)

    def _tasks(self) -> list[RenderableType]:
        """A line for each running task: a bar, its time, what it is, how far it is."""
        lines: list[RenderableType] = []
        for task_id, task in list(self.running.tasks.items()):
            bar = ("█" * round(self.running.share(task_id) * 10)).ljust(10, "·")
            words = (self.running.says(task_id), self._names.task(task))
            text = f"{bar} {duration(self.running.seconds(task_id)):>12}  {'  '.join(filter(None, words))}"
            lines.append(Text(printable(text), no_wrap=True, overflow="ellipsis"))
        return lines

    def _footer(self) -> Text:
        elapsed = max(time.monotonic() - self._began, 1e-9)
        partial = sum(cost_of_task(task) * self.running.share(key) for key, task in list(self.running.tasks.items()))
        share = min((self._cost_done + partial) / self._cost_total, 1.0) if self._cost_total else 0.0
        left = f", at most {duration(elapsed / share - elapsed)} left" if share > 0.02 else ""  # if all samples resist
        running = sum(item.passes for item in self.running.progress.values())
        speed = f", {(self._passes + running) / elapsed:,.0f} passes/s" if self._passes + running else ""
        report = self._report
        count = f"{len(report.computed)}/{report.to_do} cells"
        if not report.to_do:
            count = f"{len(report.fits_computed)}/{report.fits_to_do} fits"
        text = f"{count}, {duration(elapsed)}{left}{speed}"
        if report.to_do and len(text) + len(_NOTE) + 3 <= self.console.width:
            text += f" · {_NOTE}"
        return Text(text, style="bold", no_wrap=True, overflow="ellipsis")

    def _key(self, item: Cell | Fit) -> Key:
        if isinstance(item, Cell):
            return self._names.row(item), item.dataset.name
        return item.method.name, item.dataset.name

    def _whole(self, task: Task, result: Result) -> bool:
        """True when the task completed what its square counts."""
        if task.cell is None:
            return isinstance(result, FitDone)
        return isinstance(result, Measured) and (task.shard is None or task.cell.id in self._report.computed)


class Standings:
    """Which samples of each row are right, and which have withstood every attack so far; `row` names a cell's row."""

    def __init__(self, row: Callable[[Cell], str]) -> None:
        self._row = row
        # by row, then by set, seed, shots and shard: right without attack [N], right under every attack so far [N]
        self._rows: dict[str, dict[tuple[str, int, int, object], tuple[Hits, Hits]]] = {}

    def add(self, cell: Cell, shard: object, outcomes: Outcomes) -> None:
        """Takes in the outcomes of a cell, or of a shard of it; distances to the boundary say nothing of a budget."""
        if cell.attack.name in ATTACKS.names() and ATTACKS.get(cell.attack.name).kind == "distance":
            return
        known = self._rows.setdefault(self._row(cell), {})
        key = (f"{cell.dataset.name}/{cell.classes}", cell.fit.seed, cell.fit.shots, shard)
        standing = ~outcomes.broken
        if key in known and len(known[key][1]) == len(standing):
            standing &= known[key][1]
        known[key] = outcomes.clean_prediction == outcomes.label, standing

    def shares(self, row: str) -> tuple[float, float] | None:
        """Clean and worst accuracy of a row: means over its sets of means over samples; None before anything is there.

        Only the sets that have a cell by now are in it, and only their attacks.
        """
        sets: dict[str, list[tuple[Hits, Hits]]] = {}
        for (name, *_), hits in self._rows.get(row, {}).items():
            sets.setdefault(name, []).append(hits)
        if not sets:
            return None
        means = [[np.concatenate(hits).mean() for hits in zip(*parts, strict=True)] for parts in sets.values()]
        clean, worst = np.mean(means, axis=0).tolist()
        return clean, worst


class _Resizable(Live):
    """A live view that finds its first line again after a narrower terminal has wrapped its longer ones."""

    _drawn: tuple[int, list[int]] = (0, [])  # the columns of the terminal at the last drawing, the width of each line

    def process_renderables(self, renderables: list[ConsoleRenderable]) -> list[ConsoleRenderable]:
        """Goes up by as many lines more as the terminal has added."""
        now, (then, widths) = self.console.width, self._drawn
        added = sum(max(width - 1, 0) // now for width in widths) if now < then else 0
        lines = self.console.render_lines(self.get_renderable(), pad=False)
        self._drawn = now, [Segment.get_line_length(line) for line in lines]
        up = ((ControlType.CURSOR_UP, 1), (ControlType.ERASE_IN_LINE, 2)) * added
        first = Control(ControlType.CARRIAGE_RETURN, (ControlType.ERASE_IN_LINE, 2), *up)
        return [*([first] if added else []), *super().process_renderables(renderables)]
