"""The live view of a run on a terminal: the grid of cells by state, what is running, speed and time left."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping

from rich.console import Console, Group, RenderableType
from rich.live import Live
from rich.table import Table
from rich.text import Text

from apd_bench.runner.estimate import cost_of, fit_cost_of
from apd_bench.runner.plan import Plan
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.report import RunReport
from apd_bench.runner.reporter import Reporter, closing, duration, opening
from apd_bench.runner.tasks import CellDone, Failure, Progress, Result, Task
from apd_bench.specs import Cell

Key = tuple[str, str]
_COLUMN = 8
_LABEL = 16


class LiveReporter(Reporter):
    """Draws on standard error, four times a second, whatever the width of the terminal is at that moment."""

    def __init__(self, console: Console | None = None) -> None:
        self.console = console or Console(stderr=True)
        self._report = RunReport()
        self._total: Counter[Key] = Counter()
        self._done: Counter[Key] = Counter()
        self._bad: Counter[Key] = Counter()
        self._tasks: dict[str, tuple[Task, float]] = {}
        self._progress: Mapping[str, Progress] = {}
        self._cost_done = self._cost_total = self._passes = 0.0
        self._began = time.monotonic()
        self._live = Live(
            get_renderable=self.render,
            console=self.console,
            refresh_per_second=4,
            transient=True,
            redirect_stdout=False,
        )

    def start(self, report: RunReport, queue: WorkQueue, plan: Plan) -> None:
        """Draws the grid."""
        self._report, self._began = report, time.monotonic()
        for line in opening(report):
            self.console.print(line, highlight=False)
        if not len(queue):
            return
        todo = {cell.id for cell in queue.cells()}
        for cell in plan.cells:
            self._total[_key(cell)] += 1
            self._done[_key(cell)] += cell.id not in todo
        self._cost_total = sum(map(cost_of, queue.cells())) + sum(map(fit_cost_of, queue.fits()))
        self._live.start()

    def task_started(self, task: Task) -> None:
        """Adds a line for the task."""
        self._tasks[task.id] = (task, time.monotonic())

    def task_finished(self, task: Task, result: Result) -> None:
        """Colours its cell."""
        self._tasks.pop(task.id, None)
        self._cost_done += _cost(task)
        if task.cell is not None:
            self._done[_key(task.cell)] += isinstance(result, CellDone) and self._whole(task)
            self._bad[_key(task.cell)] += isinstance(result, Failure)
        if isinstance(result, CellDone):
            self._passes += float(result.timing.get("forwards") or 0) + float(result.timing.get("backwards") or 0)
        if isinstance(result, Failure):
            self.message(f"failed: {task.label}: {result.message}")

    def tick(self, progress: Mapping[str, Progress]) -> None:
        """Takes the numbers for the next drawing."""
        self._progress = {key: progress[key] for key in list(progress)}

    def message(self, text: str) -> None:
        """Prints the line above the view."""
        self.console.print(text, highlight=False, markup=False)

    def finish(self, report: RunReport) -> None:
        """Removes the view and sums up."""
        self._live.stop()
        for line in closing(report):
            self.console.print(line, highlight=False, markup=False)

    def render(self) -> RenderableType:
        """The whole view as it stands now."""
        return Group(self._grid(), *self._running(), self._footer())

    def _grid(self) -> RenderableType:
        methods = list(dict.fromkeys(key[0] for key in self._total))
        datasets = list(dict.fromkeys(key[1] for key in self._total))
        wide = _LABEL + (_COLUMN + 2) * len(datasets) <= self.console.width
        table = Table(box=None, padding=(0, 1), show_header=wide)
        table.add_column("", max_width=_LABEL, no_wrap=True, overflow="ellipsis")
        for name in datasets if wide else ("all",):
            table.add_column(name, max_width=_COLUMN, no_wrap=True, overflow="ellipsis", justify="right")
        for method in methods:
            groups = [[(method, name)] for name in datasets] if wide else [[(method, name) for name in datasets]]
            table.add_row(method, *(self._square(keys) for keys in groups))
        return table

    def _square(self, keys: list[Key]) -> Text:
        total = sum(self._total[key] for key in keys)
        done, bad = sum(self._done[key] for key in keys), sum(self._bad[key] for key in keys)
        style = "red" if bad else "green" if done == total else "dim" if done == 0 else "yellow"
        return Text(f"{done}/{total}" + (f" {bad}!" if bad else ""), style=style)

    def _running(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        room = max(self.console.width - 26, 20)
        for task, since in list(self._tasks.values())[: max(self.console.height - 12, 3)]:
            item = self._progress.get(task.id, Progress())
            share = min(item.done / item.total, 1.0) if item.total else 0.0
            bar = ("█" * round(share * 10)).ljust(10, "·")
            broken = f" {item.broken:g} broken" if item.broken else ""
            text = f"{_short(task)} {item.done:g}/{item.total:g}{broken}" if item.total else _short(task)
            lines.append(
                Text(f"{bar} {duration(time.monotonic() - since):>12} {text[:room]}", no_wrap=True, overflow="ellipsis")
            )
        return lines

    def _footer(self) -> Text:
        elapsed = max(time.monotonic() - self._began, 1e-9)
        partial = sum(self._fraction(task_id) for task_id in list(self._tasks))
        share = min((self._cost_done + partial) / self._cost_total, 1.0) if self._cost_total else 0.0
        left = f", about {duration(elapsed / share - elapsed)} left" if share > 0.02 else ""
        running = sum(item.passes for item in self._progress.values())
        speed = f", {(self._passes + running) / elapsed:,.0f} passes/s" if self._passes + running else ""
        report = self._report
        text = f"{len(report.computed)}/{report.to_do} cells, {duration(elapsed)}{left}{speed}"
        return Text(text, style="bold", no_wrap=True, overflow="ellipsis")

    def _whole(self, task: Task) -> bool:
        """True when the task completed its cell."""
        return task.cell is not None and (task.shard is None or task.cell.id in self._report.computed)

    def _fraction(self, task_id: str) -> float:
        task, _ = self._tasks.get(task_id, (None, 0.0))
        item = self._progress.get(task_id)
        if task is None or item is None or not item.total:
            return 0.0
        return _cost(task) * min(item.done / item.total, 1.0)


def _cost(task: Task) -> float:
    if task.cell is None:
        return fit_cost_of(task.fit)
    return cost_of(task.cell) / (1 if task.shard is None else task.shard[1])


def _key(cell: Cell) -> Key:
    return cell.fit.method.name, cell.dataset.name


def _short(task: Task) -> str:
    what = "training" if task.cell is None else task.cell.attack.label
    where = task.fit.dataset.name if task.cell is None else task.cell.dataset.name
    return f"{what} {task.fit.method.name} {where} seed {task.fit.seed}"
