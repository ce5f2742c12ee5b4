"""The pool of worker processes: places are free as soon as the driver can see that a task is done."""

import signal
import time
from concurrent.futures import Future
from dataclasses import replace
from typing import Any

import pytest
from fakes import make_plan

from apd_bench.runner.pool import Pool
from apd_bench.runner.tasks import Progress, Settings, Stopped, Task


def settings(folder):
    return Settings(fits=str(folder), checkpoints=str(folder), workbench="fakes:FakeBench")


class Late(Future[Any]):
    """A future whose callbacks have not run yet when others already see that it is done."""

    def add_done_callback(self, fn):
        """Comes too late."""


def test_a_place_is_free_once_its_task_is_done_whenever_callbacks_run(tmp_path, monkeypatch):
    pool = Pool(settings(tmp_path), 1)
    handed = []

    def submit(*words):
        handed.append(Late())
        return handed[-1]

    monkeypatch.setattr(pool._pools[0], "submit", submit)
    first, second = (Task(fit=fit) for fit in list(make_plan().fits.values())[:2])
    pool.submit(first)
    far = Progress(done=1, total=20, broken=3, passes=4e9, phase="2/4 apgd-t")
    pool._board.write(0, replace(far, phase=far.phase + " " * 99))  # cut, and never into the place of a neighbour
    pool._board.write(0, far)
    assert pool.progress() == {first.id: far}
    handed[0].set_result(Stopped())
    assert list(pool.progress()) == []
    pool.submit(second)
    assert pool.progress() == {second.id: Progress()}
    pool.close(kill=True)


def test_a_second_ctrl_c_while_workers_are_started_leaves_none_behind(tmp_path, monkeypatch, request):
    before = signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell's background jobs ignore it
    request.addfinalizer(lambda: signal.signal(signal.SIGINT, before))
    pool = Pool(settings(tmp_path), 2)
    started = pool._pools[0].submit

    def submit(*args):
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        return started(*args)

    monkeypatch.setattr(pool._pools[0], "submit", submit)
    with pytest.raises(KeyboardInterrupt):
        pool.submit(Task(fit=make_plan().cells[0].fit))
    workers = pool._workers()
    assert workers and signal.getsignal(signal.SIGINT) is signal.default_int_handler
    began = time.monotonic()
    pool.close(kill=True)
    assert time.monotonic() - began < 5 and not any(worker.is_alive() for worker in workers)
