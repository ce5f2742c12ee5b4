"""Tasks in several processes of this machine, through the standard process pool. Imports no torch in the driver.

Progress and the stop flag are plain shared memory without locks, so a worker that is killed at any moment leaves
nothing locked behind. Workers ignore Ctrl-C (the driver decides), and end themselves when the driver is gone.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import astuple, fields
from multiprocessing import connection
from typing import Any

from apd_bench.runner.executor import STAGES, environment, guarded, make_workbench
from apd_bench.runner.tasks import Failure, Interrupted, Progress, Result, Settings, Task, Workbench

_FIELDS = len(fields(Progress))
_CONTEXT = multiprocessing.get_context("spawn")


class Pool:
    """`jobs` worker processes, one task each."""

    def __init__(self, settings: Settings, jobs: int, *, workbench: str = STAGES) -> None:
        self.slots = jobs
        self._settings, self._workbench = settings, workbench
        self._stop = _CONTEXT.RawValue("b", 0)
        self._board = _CONTEXT.RawArray("d", jobs * _FIELDS)
        self._places: dict[str, tuple[int, Future[Result]]] = {}
        self._pool = self._start()

    def submit(self, task: Task) -> Future[Result]:
        """Hands the task to a free worker."""
        self._forget_done()
        place = min(set(range(self.slots)) - {place for place, _ in self._places.values()})
        self._board[place * _FIELDS : (place + 1) * _FIELDS] = [0.0] * _FIELDS
        future: Future[Result]
        try:
            # Workers are started on the first submissions.
            with _undisturbed(), environment(**_quiet(self._settings.threads)):
                future = self._pool.submit(_work, task, place)
        except BrokenExecutor as error:  # a worker died since the last look
            future = Future()
            future.set_exception(error)
        self._places[task.id] = place, future
        return future

    def progress(self) -> Mapping[str, Progress]:
        """How far the running tasks are, by task id."""
        self._forget_done()
        return {
            task_id: Progress(*self._board[place * _FIELDS : (place + 1) * _FIELDS])
            for task_id, (place, _) in self._places.items()
        }

    def stop(self) -> None:
        """Raises the flag that workers look at whenever they report."""
        self._stop.value = 1

    def revive(self) -> None:
        """Starts new workers in place of a broken pool."""
        self.close(kill=True)
        self._places.clear()
        self._pool = self._start()

    def close(self, *, kill: bool = False) -> None:
        """Ends the workers, at once with `kill`."""
        workers = list((getattr(self._pool, "_processes", None) or {}).values())
        if kill:
            for worker in workers:
                with suppress(OSError, ValueError):
                    worker.kill()
        self._pool.shutdown(wait=True, cancel_futures=True)

    def _forget_done(self) -> None:
        """Frees the places of finished tasks; a callback could come after the driver has seen that they are done."""
        self._places = {task_id: held for task_id, held in self._places.items() if not held[1].done()}

    def _start(self) -> ProcessPoolExecutor:
        return ProcessPoolExecutor(
            self.slots,
            mp_context=_CONTEXT,
            initializer=_begin,
            initargs=(self._settings, self._workbench, self._stop, self._board),
        )


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds Ctrl-C and termination requests back until all started workers are known, so that each can be ended."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    came: list[int] = []
    kinds = (signal.SIGINT, signal.SIGTERM)
    before = {kind: signal.signal(kind, lambda number, frame: came.append(number)) for kind in kinds}
    try:
        yield
    finally:
        for kind, handler in before.items():
            signal.signal(kind, signal.SIG_DFL if handler is None else handler)
        for number in came:
            signal.raise_signal(number)


def _quiet(threads: int | None) -> dict[str, str]:
    """The variables that workers inherit: idle OpenMP threads sleep, and each worker has its own few threads."""
    names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS") if threads is not None else ()
    return {"OMP_WAIT_POLICY": "PASSIVE", **dict.fromkeys(names, str(threads))}


# ------------------------------------------------------------------ inside a worker


class _Worker:
    """What one worker process keeps between tasks."""

    def __init__(self, settings: Settings, workbench: str, stop: Any, board: Any) -> None:
        self.bench: Workbench = make_workbench(workbench, settings)
        self.stop, self.board = stop, board

    def run(self, task: Task, place: int) -> Result:
        def watch(progress: Progress) -> None:
            self.board[place * _FIELDS : (place + 1) * _FIELDS] = astuple(progress)
            if self.stop.value:
                raise Interrupted

        return guarded(self.bench, task, watch)


_worker: list[_Worker | Failure] = []


def _begin(settings: Settings, workbench: str, stop: Any, board: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    try:
        _worker[:] = [_Worker(settings, workbench, stop, board)]
    except Exception as error:  # an initializer that raises breaks the whole pool without saying why
        _worker[:] = [Failure.of(error)]


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _work(task: Task, place: int) -> Result:
    worker = _worker[0]
    return worker if isinstance(worker, Failure) else worker.run(task, place)
