"""Showing a run while it goes on: nothing, plain lines, JSON lines. Imports no torch."""

import json
import sys
import time
from collections import deque
from collections.abc import Mapping
from dataclasses import asdict
from importlib import import_module
from typing import Any, TextIO

from apd_bench.core.text import counted, cut, plain, printable
from apd_bench.records.measured import Measured
from apd_bench.runner.plan import Plan
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.report import RunReport
from apd_bench.runner.running import Names, Running
from apd_bench.runner.tasks import Failure, FitDone, Progress, Result, Task

_LINES = 12  # of a run in a notebook
_EVERY = 15.0  # seconds between two progress lines of a long task
_LINE = 120  # characters of a line


class Reporter:
    """Shows nothing; the others say more."""

    def prepare(self) -> None:
        """Called before torch and the models are loaded, where there is work to do."""

    def start(self, report: RunReport, queue: WorkQueue, plan: Plan) -> None:
        """Called once, before the first task."""

    def task_started(self, task: Task) -> None:
        """Called when a task is handed to a worker."""

    def task_finished(self, task: Task, result: Result) -> None:
        """Called when its result is on disk."""

    def tick(self, progress: Mapping[str, Progress]) -> None:
        """Called several times a second with how far the running tasks are."""

    def message(self, text: str) -> None:
        """Shows one line that does not belong to a task."""

    def finish(self, report: RunReport) -> None:
        """Called once, at the end, whatever the end was."""


class PlainReporter(Reporter):
    """One line for each finished task, and now and then one for those that take long; none is longer than 120 signs."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stderr
        self._running = Running()
        self._asked = time.monotonic()
        self._said: dict[str, str] = {}
        self._report = RunReport()

    def start(self, report: RunReport, queue: WorkQueue, plan: Plan) -> None:
        self._report, self._names = report, Names(plan)
        for line in opening(report):
            self._write(line)

    def task_started(self, task: Task) -> None:
        self._running.begin(task)

    def task_finished(self, task: Task, result: Result) -> None:
        """Says what came of it; that something untrained is ready is no news."""
        self._running.end(task)
        self._said.pop(task.id, None)
        self._asked = time.monotonic()
        report = self._report
        if task.kind == "cell":
            done = len(report.computed) + len(report.failures)
            self._line(f"[{done}/{report.to_do}] {self._names.task(task)}", describe(result))
        elif task.fit.method.trains or isinstance(result, Failure):
            self._line(f"[fit] {self._names.task(task).partition(' ')[2]}", describe(result))

    def tick(self, progress: Mapping[str, Progress]) -> None:
        """Says, after 15 seconds without a word, how far the running tasks are, where that has changed."""
        self._running.tick(progress)
        if time.monotonic() - self._asked < _EVERY:
            return
        self._asked = time.monotonic()
        for task_id, task in self._running.tasks.items():
            text = self._running.says(task_id) if task_id in progress else ""
            if text and self._said.get(task_id) != text:
                self._said[task_id] = text
                self._line(f"  ... {self._names.task(task)}", text)

    def message(self, text: str) -> None:
        self._write(text)

    def finish(self, report: RunReport) -> None:
        for line in closing(report):
            self._write(line)

    def _line(self, what: str, result: str) -> None:
        """A name and what there is to say of it; the name is cut where both are too long."""
        result = plain(result, _LINE - 30)
        self._write(f"{cut(what, _LINE - 2 - len(result))}: {result}")

    def _write(self, line: str) -> None:
        self._stream.write(printable(line) + "\n")
        self._stream.flush()


class NotebookReporter(PlainReporter):
    """The last lines of a run in one output of a notebook cell, which is replaced in place."""

    def __init__(self) -> None:
        super().__init__()
        self._lines: deque[str] = deque(maxlen=_LINES)
        self._output: Any = None

    def _write(self, line: str) -> None:
        display = import_module("IPython.display").display
        self._lines.append(printable(line))
        content = {"text/plain": "\n".join(self._lines)}
        if self._output is None:
            self._output = display(content, raw=True, display_id=True)
        else:
            self._output.update(content, raw=True)


class JsonReporter(Reporter):
    """One JSON object a line on standard output, for machines."""

    def __init__(self, stream: TextIO | None = None) -> None:
        self._stream = stream or sys.stdout
        self._said = 0.0

    def start(self, report: RunReport, queue: WorkQueue, plan: Plan) -> None:
        self._emit(
            "start",
            planned=report.planned,
            done=report.already_done,
            to_do=report.to_do,
            fits=report.fits_to_do,
            impossible=[{"cell": item.cell.id, "reason": item.reason} for item in plan.impossible],
            damaged=report.damaged,
        )

    def task_started(self, task: Task) -> None:
        self._emit("task_started", **named(task))

    def task_finished(self, task: Task, result: Result) -> None:
        more = {"metrics": dict(result.metrics)} if isinstance(result, Measured) else {}
        self._emit("task_finished", **named(task), result=describe(result), **more)

    def tick(self, progress: Mapping[str, Progress]) -> None:
        """Event "progress", at most once a second."""
        if progress and time.monotonic() - self._said >= 1:
            self._said = time.monotonic()
            self._emit("progress", tasks={key: asdict(item) for key, item in progress.items()})

    def message(self, text: str) -> None:
        self._emit("message", text=text)

    def finish(self, report: RunReport) -> None:
        self._emit(
            "finish",
            computed=len(report.computed),
            failed=len(report.failures),
            cancelled=report.cancelled,
            fits=len(report.fits_computed),
            interrupted=report.interrupted,
            seconds=round(report.seconds, 3),
            exit_code=report.exit_code,
        )

    def _emit(self, event: str, **values: object) -> None:
        self._stream.write(json.dumps({"event": event, **values}, sort_keys=True) + "\n")
        self._stream.flush()


def named(task: Task) -> dict[str, str]:
    """A task in events: what it is, and the fit that it belongs to."""
    return {"id": task.id, "kind": task.kind, "label": task.label, "fit": f"{task.fit.label} {task.fit.id[:6]}"}


def opening(report: RunReport) -> list[str]:
    """What a run says first."""
    lines = [f"warning: {text}" for text in report.damaged]
    if report.to_do + report.fits_to_do == 0:
        rest = report.planned - report.already_done
        state = "all done" if rest == 0 else f"{report.already_done} done, {rest} left out by the options"
        return [*lines, f"Nothing to compute: {report.planned} cells, {state}."]
    done = f", {report.already_done} already done" if report.already_done else ""
    reused = f" ({report.fits_reused} reused)" if report.fits_reused else ""
    return [
        *lines,
        f"{counted(report.planned, 'cell')}{done}: {report.to_do:,} to measure, "
        f"{counted(report.fits_to_do, 'fit')} to train{reused}.",
    ]


def closing(report: RunReport) -> list[str]:
    """What a run says last."""
    if report.to_do + report.fits_to_do == 0:
        return []
    lines = [
        f"Measured {counted(len(report.computed), 'cell')} and trained {counted(len(report.fits_computed), 'fit')} "
        f"in {duration(report.seconds)}."
    ]
    for failure, number in report.messages()[:5]:
        name = "" if failure.prerequisite else f"{failure.type}: "
        lines.append(f"apd-bench: error: {counted(number, 'cell')}: {name}{failure.message} {failure.hint}".rstrip())
    if report.interrupted:
        done = len(report.computed) + len(report.failures) + len(report.fits_computed)
        left = report.to_do + report.fits_to_do - done
        lines.append(f"Interrupted with {left} cells and fits left; the same command goes on from here.")
    elif report.failures:
        lines.append("The same command tries the failed cells again; `apd-bench show CELL` prints a traceback.")
    return lines


def describe(result: Result) -> str:
    """What came of a task, in a few words."""
    if isinstance(result, FitDone):
        return f"trained in {duration(float(result.card.get('seconds') or 0))}"
    if isinstance(result, Measured):
        metrics: Mapping[str, Any] = result.metrics
        parts = [
            f"{name} {100 * float(metrics[key]):.1f}%"
            for name, key in (("clean", "clean_accuracy"), ("robust", "robust_accuracy"))
            if metrics.get(key) is not None
        ]
        spent = duration(float(result.timing.get("seconds") or 0))
        return f"{', '.join(parts)} (n={metrics.get('n')}, {spent})"
    if isinstance(result, Failure):
        return f"failed: {result.message}"
    return "stopped"


def duration(seconds: float) -> str:
    """Seconds as people read them: 4.2 s, 3 min 20 s, 2 h 05 min, 3 d 4 h."""
    if seconds < 60:
        return f"{seconds:.1f} s"
    minutes = round(seconds / 60, 4)
    if seconds < 3600:
        return f"{int(minutes)} min {int(seconds % 60):02d} s"
    hours = int(seconds // 3600)
    if hours < 48:
        return f"{hours} h {int(minutes % 60):02d} min"
    return f"{hours // 24} d {hours % 24} h"
