"""What the driver needs of an executor, and the simplest one: this process. Imports no torch."""

import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import Future
from contextlib import contextmanager
from types import FrameType
from typing import Protocol

from apd_bench.core.registry import name_plugins
from apd_bench.core.targets import resolve
from apd_bench.runner.tasks import Failure, Interrupted, Progress, Result, Settings, Stopped, Task, Watch, Workbench


class Executor(Protocol):
    """Carries out tasks, up to `slots` at a time. One that lost a worker breaks its futures with a BrokenExecutor."""

    @property
    def slots(self) -> int:
        """How many tasks it can carry out at a time."""

    def submit(self, task: Task) -> Future[Result]:
        """Starts a task; never called with `slots` tasks already running."""

    def progress(self) -> Mapping[str, Progress]:
        """How far the running tasks are, by task id."""

    def stop(self) -> None:
        """Asks the running tasks to stop at their next safe point."""

    def close(self, *, kill: bool = False) -> None:
        """Ends the workers, at once with `kill`."""


def make_workbench(settings: Settings) -> Workbench:
    """The workbench that the settings name, in the process that calls this."""
    name_plugins(settings.plugins)
    bench: Workbench = resolve(settings.workbench, type)(settings)
    return bench


def guarded(bench: Workbench, task: Task, watch: Watch) -> Result:
    """The result of a task, a Failure for the exception that it raised, or Stopped."""
    try:
        return bench.run(task, watch)
    except Interrupted:
        return Stopped()
    except Exception as error:
        return Failure.of(error)


def at_most_every(seconds: float, report: Watch) -> Watch:
    """A watch that calls `report` at most once in so many seconds."""
    last = float("-inf")

    def watch(progress: Progress) -> None:
        nonlocal last
        if time.monotonic() - last >= seconds:
            last = time.monotonic()
            report(progress)

    return watch


class InProcess:
    """Runs each task at once, in this process; `on_tick` is called while it works."""

    slots: int = 1

    def __init__(self, settings: Settings) -> None:
        self._bench: Workbench | None = None
        self._settings = settings
        self._progress: dict[str, Progress] = {}
        self._stopping = False
        self.on_tick: Callable[[], None] = lambda: None

    def submit(self, task: Task) -> Future[Result]:
        future: Future[Result] = Future()
        self._progress = {task.id: Progress()}

        def watch(progress: Progress) -> None:
            self._progress[task.id] = progress
            self.on_tick()
            if self._stopping:
                raise Interrupted

        if self._bench is None:
            self._bench = make_workbench(self._settings)
        future.set_result(guarded(self._bench, task, watch))
        self._progress = {}
        return future

    def progress(self) -> Mapping[str, Progress]:
        return self._progress

    def stop(self) -> None:
        self._stopping = True

    def close(self, *, kill: bool = False) -> None:
        """Forgets the loaded models and sets."""
        if self._bench is not None:
            self._bench.close()
            self._bench = None


@contextmanager
def signals_to(handler: Callable[[int, FrameType | None], object], *kinds: signal.Signals) -> Iterator[None]:
    """Inside, `handler` gets the signals of these kinds; in a thread, where none can be caught, nothing changes."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {kind: signal.signal(kind, handler) for kind in kinds}
    try:
        yield
    finally:
        for kind, old in before.items():
            signal.signal(kind, signal.SIG_DFL if old is None else old)


@contextmanager
def environment(**variables: str) -> Iterator[None]:
    """The environment with `variables`, and afterwards as it was before."""
    before = dict(os.environ)
    os.environ.update(variables)
    try:
        yield
    finally:
        for name in os.environ.keys() - before.keys():
            del os.environ[name]
        os.environ.update(before)
