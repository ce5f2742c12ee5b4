"""The live view of a run on a terminal: the grid of cells by state, what is running, speed and time left."""

import time
from collections import Counter
from collections.abc import Mapping

from rich.console import Console, ConsoleRenderable, Group, RenderableType
from rich.control import Control
from rich.live import Live
from rich.segment import ControlType, Segment
from rich.table import Table
from rich.text import Text

from apd_bench.core.specs import Fit
from apd_bench.core.text import printable
from apd_bench.records.measured import Measured
from apd_bench.runner.estimate import cost_of, passes_of
from apd_bench.runner.plan import Plan
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.report import RunReport
from apd_bench.runner.reporter import Reporter, closing, duration, opening
from apd_bench.runner.tasks import Failure, FitDone, Progress, Result, Stopped, Task

Key = tuple[str, str]
_COLUMN = 10  # characters of a column at most
_NARROW = 6  # and at least
_LABEL = 16
_STATES = {"green": "█", "yellow": "▒", "red": "!", "dim": "·"}


class LiveReporter(Reporter):
    """Draws on standard error, four times a second, whatever the size of the terminal is at that moment."""

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
        """Draws the grid; of fits, where no cell is to be measured."""
        self._report, self._began = report, time.monotonic()
        for line in opening(report):
            self.message(line)
        if not len(queue):
            return
        if report.to_do:
            todo = {cell.id for cell in queue.cells()}
            keys = [(cell.id in todo, (cell.fit.method.name, cell.dataset.name)) for cell in plan.cells]
        else:
            todo = {fit.id for fit in queue.fits()}
            keys = [(fit_id in todo, _key(fit)) for fit_id, fit in plan.fits.items()]
        for left, key in keys:
            self._total[key] += 1
            self._done[key] += not left
        self._cost_total = sum(map(cost_of, queue.cells())) + sum(map(cost_of, queue.fits()))
        self._live.start()

    def task_started(self, task: Task) -> None:
        """Adds a line for the task."""
        self._tasks[task.id] = (task, time.monotonic())

    def task_finished(self, task: Task, result: Result) -> None:
        """Colours its cell, or its fit where only fits are shown."""
        self._tasks.pop(task.id, None)
        self._cost_done += 0 if isinstance(result, Stopped) else _cost(task)
        if task.cell is not None or not self._report.to_do:
            self._done[_place(task)] += self._whole(task, result)
            self._bad[_place(task)] += isinstance(result, Failure)
        if isinstance(result, Measured):
            self._passes += float(result.timing.get("forwards") or 0) + float(result.timing.get("backwards") or 0)
        if isinstance(result, Failure):
            self.message(f"failed: {task.label}: {result.message}")

    def tick(self, progress: Mapping[str, Progress]) -> None:
        """Takes the numbers for the next drawing."""
        self._progress = {key: progress[key] for key in list(progress)}

    def message(self, text: str) -> None:
        """Prints the line above the view."""
        self.console.print(printable(text), highlight=False, markup=False)

    def finish(self, report: RunReport) -> None:
        """Removes the view and sums up."""
        self._live.stop()
        for line in closing(report):
            self.message(line)

    def render(self) -> RenderableType:
        """The whole view of this moment, no larger than the terminal."""
        room = max(self.console.height - 2, 3)  # the footer, and the line that the cursor is on
        running = self._running()[: max(room // 3, 1)]
        return Group(self._grid(room - len(running)), *running, self._footer())

    def _grid(self, room: int) -> RenderableType:
        """A row for each method, a column for each set; one sign for each set where the terminal is too narrow."""
        methods = list(dict.fromkeys(key[0] for key in self._total))
        datasets = list(dict.fromkeys(key[1] for key in self._total))
        column = min((self.console.width - _LABEL - 2) // max(len(datasets), 1) - 1, _COLUMN)
        wide = column >= max([_NARROW, *(len(self._square([key]).plain) for key in self._total)])
        table = Table(box=None, padding=(0, 1, 0, 0), show_header=wide)
        table.add_column("", max_width=_LABEL, no_wrap=True, overflow="ellipsis")
        for name in datasets if wide else ("", ""):
            width = column if wide else None
            table.add_column(_plain(name), max_width=width, no_wrap=True, overflow="ellipsis", justify="right")
        shown, hidden = self._rows(methods, room - 1)
        for method in shown:
            keys = [(method, name) for name in datasets]
            if wide:
                table.add_row(_plain(method), *(self._square([key]) for key in keys))
            else:
                table.add_row(_plain(method), Text.assemble(*map(self._sign, keys)), self._square(keys))
        if hidden:
            rest = self._square([(method, name) for method in hidden for name in datasets])
            table.add_row(f"{len(hidden)} more", *[""] * (len(datasets) - 1 if wide else 1), rest)
        return table

    def _rows(self, methods: list[str], room: int) -> tuple[list[str], list[str]]:
        """The methods that there is room for, those first on which something goes on, and the others."""
        if len(methods) <= room:
            return methods, []

        def rank(method: str) -> tuple[bool, bool]:
            keys = [key for key in self._total if key[0] == method]
            running = any(_place(task)[0] == method for task, _ in list(self._tasks.values()))
            return not running, all(self._done[key] == self._total[key] for key in keys)

        chosen = set(sorted(methods, key=rank)[: max(room - 1, 1)])
        return [item for item in methods if item in chosen], [item for item in methods if item not in chosen]

    def _square(self, keys: list[Key]) -> Text:
        total, done, bad = (sum(counts[key] for key in keys) for counts in (self._total, self._done, self._bad))
        style = "red" if bad else "green" if done == total else "dim" if done == 0 else "yellow"
        return Text(f"{done}/{total}" + (f" {bad}!" if bad else ""), style=style) if total else Text("")

    def _sign(self, key: Key) -> Text:
        style = str(self._square([key]).style)
        return Text(_STATES.get(style, " "), style=style)

    def _running(self) -> list[RenderableType]:
        lines: list[RenderableType] = []
        for task, since in list(self._tasks.values()):
            item = self._progress.get(task.id, Progress())
            bar = ("█" * round(_share(task, item) * 10)).ljust(10, "·")
            broken = f" {item.broken:g} broken" if item.broken else ""
            count = f"{item.done:g}/{item.total:g}{broken} " if item.total else ""
            text = f"{bar} {duration(time.monotonic() - since):>12} {count}{_short(task)}"
            lines.append(Text(printable(text), no_wrap=True, overflow="ellipsis"))
        return lines

    def _footer(self) -> Text:
        elapsed = max(time.monotonic() - self._began, 1e-9)
        partial = sum(self._fraction(task_id) for task_id in list(self._tasks))
        share = min((self._cost_done + partial) / self._cost_total, 1.0) if self._cost_total else 0.0
        left = f", about {duration(elapsed / share - elapsed)} left" if share > 0.02 else ""
        running = sum(item.passes for item in self._progress.values())
        speed = f", {(self._passes + running) / elapsed:,.0f} passes/s" if self._passes + running else ""
        report = self._report
        count = f"{len(report.computed)}/{report.to_do} cells"
        if not report.to_do:
            count = f"{len(report.fits_computed)}/{report.fits_to_do} fits"
        return Text(f"{count}, {duration(elapsed)}{left}{speed}", style="bold", no_wrap=True, overflow="ellipsis")

    def _whole(self, task: Task, result: Result) -> bool:
        """True when the task completed what its square counts."""
        if task.cell is None:
            return isinstance(result, FitDone)
        return isinstance(result, Measured) and (task.shard is None or task.cell.id in self._report.computed)

    def _fraction(self, task_id: str) -> float:
        task, _ = self._tasks.get(task_id, (None, 0.0))
        item = self._progress.get(task_id)
        return 0.0 if task is None or item is None else _cost(task) * _share(task, item)


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


def _plain(name: str) -> Text:
    """A name without markup, which a name in brackets would be taken for."""
    return Text(printable(name))


def _share(task: Task, item: Progress) -> float:
    """How much of a task is done: by samples, or by passes where an attack works on all samples at once."""
    share = item.done / item.total if item.total else 0.0
    if task.cell is not None and item.passes:
        share = max(share, item.passes * (1 if task.shard is None else task.shard[1]) / sum(passes_of(task.cell)))
    return min(share, 1.0)


def _cost(task: Task) -> float:
    return cost_of(task.cell or task.fit) / (1 if task.shard is None else task.shard[1])


def _key(fit: Fit) -> Key:
    return fit.method.name, fit.dataset.name


def _place(task: Task) -> Key:
    return _key(task.fit) if task.cell is None else (task.fit.method.name, task.cell.dataset.name)


def _short(task: Task) -> str:
    what = ("training" if task.fit.method.trains else "preparing") if task.cell is None else task.cell.attack.label
    return f"{what} {' '.join(_place(task))} seed {task.fit.seed}"
