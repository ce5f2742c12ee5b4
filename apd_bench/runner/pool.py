"""Tasks in several processes of this machine, through the standard process pool. Imports no torch in the driver.

Progress and the stop flag are plain shared memory without locks, so a worker that is killed at any moment leaves
nothing locked behind. Workers ignore Ctrl-C (the driver decides), and end themselves when the driver is gone.
"""

import ctypes
import multiprocessing
import os
import signal
import threading
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import BrokenExecutor, Future, ProcessPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import astuple, fields
from multiprocessing import connection
from typing import Any

from apd_bench.runner.executor import environment, guarded, make_workbench, signals_to
from apd_bench.runner.tasks import Failure, Interrupted, Progress, Result, Settings, Task, Workbench

_PHASE = 32  # characters of the phase of a Progress
_CONTEXT = multiprocessing.get_context("spawn")


class Pool:
    """`jobs` worker processes, one task each; with `gpus`, each worker sees one of them alone, in turn.

    Each worker is a standard pool of one, so that a task's place tells its worker and what that inherits.
    """

    def __init__(self, settings: Settings, jobs: int, *, gpus: Sequence[str] = ()) -> None:
        self.slots = jobs
        self._settings, self._gpus = settings, gpus
        self._stop = _CONTEXT.RawValue("b", 0)
        self._board = _Board(jobs)
        self._places: dict[str, tuple[int, Future[Result]]] = {}
        self._spoiled: set[int] = set()  # places whose worker died or lost its GPU
        self._pools = [self._start() for _ in range(jobs)]

    def submit(self, task: Task) -> Future[Result]:
        self._forget_done()
        place = min(set(range(self.slots)) - {place for place, _ in self._places.values()})
        self._board.write(place, Progress())
        future: Future[Result]
        if place in self._spoiled:
            self._pools[place].shutdown(wait=True)
            self._pools[place] = self._start()
            self._spoiled.discard(place)
        try:
            # Workers are started on the first submissions.
            with _undisturbed(), environment(**self._inherited(place)):
                future = self._pools[place].submit(_work, task, place)
        except BrokenExecutor as error:  # a worker died since the last look
            future = Future()
            future.set_exception(error)
        self._places[task.id] = place, future
        return future

    def progress(self) -> Mapping[str, Progress]:
        self._forget_done()
        return {task_id: self._board.read(place) for task_id, (place, _) in self._places.items()}

    def stop(self) -> None:
        self._stop.value = 1

    def close(self, *, kill: bool = False) -> None:
        """Ends the workers at once: they hold nothing that is not stored, and leaving by themselves takes seconds."""
        for worker in self._workers():
            with suppress(OSError, ValueError):
                worker.kill()
        for pool in self._pools:
            pool.shutdown(wait=True, cancel_futures=True)

    def _workers(self) -> list[Any]:
        return [worker for pool in self._pools for worker in (getattr(pool, "_processes", None) or {}).values()]

    def _forget_done(self) -> None:
        """Frees the places of finished tasks; a callback could come after the driver has seen that they are done."""
        self._spoiled |= {place for place, future in self._places.values() if future.done() and _is_spoiled(future)}
        self._places = {task_id: held for task_id, held in self._places.items() if not held[1].done()}

    def _start(self) -> ProcessPoolExecutor:
        words = (self._settings, self._stop, self._board)
        return ProcessPoolExecutor(1, mp_context=_CONTEXT, initializer=_begin, initargs=words)

    def _inherited(self, place: int) -> dict[str, str]:
        """The environment of the worker number `place`: idle OpenMP threads sleep, a few threads, one GPU."""
        variables = {"OMP_WAIT_POLICY": "PASSIVE"}
        if self._settings.threads is not None:
            names = ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS")
            variables |= dict.fromkeys(names, str(self._settings.threads))
        return variables | ({"CUDA_VISIBLE_DEVICES": self._gpus[place % len(self._gpus)]} if self._gpus else {})


class _Board:
    """The progress of each place, in memory that all processes share; a half-written one does no harm."""

    def __init__(self, places: int) -> None:
        self._rows: Any = _CONTEXT.RawArray(_Row, places)

    def write(self, place: int, progress: Progress) -> None:
        *numbers, phase = astuple(progress)
        self._rows[place] = (*numbers, phase.encode("ascii", "replace")[:_PHASE])

    def read(self, place: int) -> Progress:
        row = {item.name: getattr(self._rows[place], item.name) for item in fields(Progress)}
        return Progress(**{**row, "phase": row["phase"].decode("ascii", "replace")})


class _Row(ctypes.Structure):
    """A Progress: its numbers, and its phase."""

    _fields_ = (*((item.name, ctypes.c_double) for item in fields(Progress)[:-1]), ("phase", ctypes.c_char * _PHASE))


def _is_spoiled(future: Future[Result]) -> bool:
    """Whether the worker of a finished task is of no use any more."""
    error = future.exception()
    result = None if error is not None else future.result()
    return isinstance(error, BrokenExecutor) or (isinstance(result, Failure) and result.sticky)


@contextmanager
def _undisturbed() -> Iterator[None]:
    """Holds Ctrl-C and termination requests back until all started workers are known, so that each can be ended."""
    came: list[int] = []
    try:
        with signals_to(lambda number, frame: came.append(number), signal.SIGINT, signal.SIGTERM):
            yield
    finally:
        for number in came:
            signal.raise_signal(number)


# ------------------------------------------------------------------ inside a worker


_kept: list[Any] = []  # between tasks: the workbench, or the failure to make one; the stop flag; the board


def _begin(settings: Settings, stop: Any, board: Any) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    parent = multiprocessing.parent_process()
    if parent is not None:
        threading.Thread(target=_end_with, args=(parent.sentinel,), daemon=True).start()
    bench: Workbench | Failure
    try:
        bench = make_workbench(settings)
    except Exception as error:  # an initializer that raises breaks the whole pool without saying why
        bench = Failure.of(error)
    _kept[:] = [bench, stop, board]


def _end_with(sentinel: int) -> None:
    connection.wait([sentinel])
    os._exit(1)


def _work(task: Task, place: int) -> Result:
    bench, stop, board = _kept

    def watch(progress: Progress) -> None:
        board.write(place, progress)
        if stop.value:
            raise Interrupted

    return bench if isinstance(bench, Failure) else guarded(bench, task, watch)
