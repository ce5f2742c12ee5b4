"""Fits and cells as tasks of a Ray cluster: an existing one, or one started here for several GPUs or cores.

Ray schedules, and repeats tasks whose worker or node died; the driver stays the only writer of the store. Prompt states
travel with the tasks, so that workers need no shared disk. How far tasks are is written on a board, an actor that no
task waits for and that may be lost.
"""

import math
import signal
import socket
import tempfile
import threading
from collections.abc import Iterable, Mapping
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import astuple, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, TaskCancelledError
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from apd_bench.core.errors import MissingPrerequisite, UsageError, first_line
from apd_bench.core.options import RunOptions
from apd_bench.runner.executor import at_most_every, guarded, make_workbench, signals_to
from apd_bench.runner.plan import fits_of
from apd_bench.runner.tasks import Failure, Interrupted, Progress, Result, Settings, Stopped, Task, Workbench

_RETRIES = 3  # of a task whose worker or node died; an error of the task itself is a result and is not repeated
_REPORT_EVERY = 0.4  # seconds between two reports of a worker

Numbers = tuple[Any, ...]


class RayExecutor:
    """Tasks on a Ray cluster, each with a core, or in an actor that has a GPU (with `jobs`, a share of one).

    `settings.device` "auto" means: GPUs where the cluster has them, whatever the driver's own machine has. An actor is
    a process that keeps its GPU: a worker of Ray is lent to task after task, and CUDA stays on the GPU of the first.
    """

    def __init__(self, settings: Settings, *, address: str | None = None, jobs: int | None = None) -> None:
        self._jobs = jobs
        self._refs: dict[str, Any] = {}
        self._states: dict[str, Any] = {}
        self._stopping = False
        self._began_ray = not ray.is_initialized()
        if self._began_ray:
            _connect(address, jobs, settings.threads)
        there = _resources().get("GPU", 0.0)
        device, self._gpus = share_of_gpus(settings.device, jobs, there)
        threads = None if self._gpus else settings.threads
        self._settings = replace(settings, device=device, threads=threads, share=self._gpus or 1.0)
        self._actors: dict[str, Any] = {}
        self._idle: list[Any] = []
        self._function = ray.remote(_work).options(num_cpus=1, num_gpus=self._gpus, max_retries=_RETRIES)
        self._board = _View()

    @property
    def slots(self) -> int:
        """How many tasks the cluster can run now; nodes may come and go."""
        if self._gpus:
            return max(int(_resources().get("GPU", 0)) * int(1 / self._gpus), 1)
        return self._jobs or max(int(_resources().get("CPU", 0)), 1)

    def submit(self, task: Task) -> Future[Result]:
        needed = () if task.cell is None else fits_of(task.cell)
        states = {fit.id: self._state(fit.id) for fit in needed}
        board = self._board.actor
        words = (task, self._settings, board, list(states), *states.values())
        if self._gpus:
            self._actors[task.id] = self._idle.pop() if self._idle else self._actor()
            ref = self._actors[task.id].work.remote(*words)
        else:
            ref = self._function.remote(*words)
        self._refs[task.id] = ref
        if self._stopping:  # the request came while the task was handed over
            self._cancel(task.id, ref)
        result: Future[Result] = Future()

        def finished(done: Future[Any]) -> None:
            self._refs.pop(task.id, None)
            error = done.exception()
            came = done.result() if error is None else Failure.of(error)
            if isinstance(error, TaskCancelledError):
                came = Stopped()
            self._release(self._actors.pop(task.id, None), spoiled=isinstance(came, Failure) and came.sticky)
            result.set_result(came)

        ref.future().add_done_callback(finished)
        return result

    def progress(self) -> Mapping[str, Progress]:
        """How far the running tasks are, by task id, as of a moment ago; waits for nobody."""
        return self._board.read(self._refs)

    def stop(self) -> None:
        self._stopping = True
        for task_id, ref in list(self._refs.items()):
            self._cancel(task_id, ref)

    def close(self, *, kill: bool = False) -> None:
        """Leaves the cluster, and ends it when it was started here."""
        for ref in list(self._refs.values()) if kill and not self._gpus else ():
            ray.cancel(ref, force=True)
        for actor in [*self._actors.values(), *self._idle]:
            ray.kill(actor)
        ray.kill(self._board.actor)
        if self._began_ray:
            ray.shutdown()

    def _actor(self) -> Any:
        threads = 2  # one to work, one to stop
        lives = {"max_restarts": -1, "max_task_retries": _RETRIES, "max_concurrency": threads}
        return ray.remote(_Worker).options(num_cpus=0, num_gpus=self._gpus, **lives).remote()

    def _release(self, actor: Any, *, spoiled: bool) -> None:
        """Keeps an actor for the next task; ends one that lost its GPU, or that holds what another may wait for."""
        if actor is not None and not spoiled and len(self._actors) + len(self._idle) < self.slots:
            self._idle.append(actor)
        elif actor is not None:
            ray.kill(actor)

    def _cancel(self, task_id: str, ref: Any) -> None:
        ray.cancel(ref, force=False, recursive=False)
        if task_id in self._actors:
            self._actors[task_id].stop.remote()

    def _state(self, fit_id: str) -> Any:
        """The files of a fit in Ray's object store, put there once."""
        if fit_id not in self._states:
            folder = Path(self._settings.fits) / fit_id
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
            self._states[fit_id] = ray.put(files)
        return self._states[fit_id]


class _Board:
    """The actor: what the workers said last, by task id."""

    def __init__(self) -> None:
        self._said: dict[str, Numbers] = {}

    def say(self, task_id: str, numbers: Numbers) -> None:
        self._said[task_id] = numbers

    def read(self, task_ids: list[str]) -> dict[str, Numbers]:
        """What was said of these tasks; everything else is forgotten."""
        self._said = {task_id: self._said[task_id] for task_id in task_ids if task_id in self._said}
        return self._said


class _View:
    """The driver's side of the board. Ray starts it again, empty, when its node dies; workers then say it anew."""

    def __init__(self) -> None:
        here = NodeAffinitySchedulingStrategy(ray.get_runtime_context().get_node_id(), soft=True)
        self.actor: Any = ray.remote(_Board).options(num_cpus=0, max_restarts=-1, scheduling_strategy=here).remote()
        self._asked: Any = None
        self._last: dict[str, Numbers] = {}

    def read(self, task_ids: Iterable[str]) -> dict[str, Progress]:
        """The last answer that has come; a new one is asked for when none is on its way."""
        wanted = list(task_ids)
        if self._asked is not None and ray.wait([self._asked], timeout=0)[0]:
            asked, self._asked = self._asked, None
            with suppress(RayError):  # the board is lost for now; what it said last stands
                self._last = ray.get(asked)
        if self._asked is None:
            self._asked = self.actor.read.remote(wanted)
        return {task_id: Progress(*self._last.get(task_id, ())) for task_id in wanted}


def _resources() -> dict[str, float]:
    """What the cluster has now."""
    ask: Any = ray.cluster_resources
    return dict(ask())


def share_of_gpus(device: str, jobs: int | None, there: float) -> tuple[str, float]:
    """The device of the workers and the share of a GPU that each takes, `jobs` on each of the cluster's `there` GPUs.

    Raises MissingPrerequisite when GPUs are asked for and it has none, UsageError when one is asked for by number.
    """
    if device == "auto":
        device = "cuda" if there else "cpu"
    if not device.startswith("cuda"):
        return device, 0.0
    if device != "cuda":
        raise UsageError(f"On Ray, Ray chooses the GPU of a task: '{device}' cannot be.", hint="Use --device cuda.")
    if not there:
        raise MissingPrerequisite("The Ray cluster has no GPU.", hint="Use --device cpu, or add a node that has one.")
    return device, math.floor(1 / (jobs or 1) * 1e4) / 1e4


def _connect(address: str | None, jobs: int | None, threads: int | None) -> None:
    variables = {"OMP_WAIT_POLICY": "PASSIVE"} | ({} if threads is None else {"OMP_NUM_THREADS": str(threads)})
    options: dict[str, Any] = {"log_to_driver": False, "runtime_env": {"env_vars": variables}}
    if address is None:
        options |= {"num_cpus": jobs, "include_dashboard": False}
    try:
        _reach(address)
        ray.init(address=address or "local", configure_logging=False, **options)
    except (OSError, RayError, ValueError, RuntimeError) as error:
        raise MissingPrerequisite(
            f"There is no Ray cluster at '{address or 'local'}': {first_line(error)}",
            hint="Start one (ray start --head), or leave --address out to start one here.",
        ) from error


def _reach(address: str | None) -> None:
    """Raises OSError when nothing listens at "host:port": Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()


def executor_for(settings: Settings, options: RunOptions, work: int) -> RayExecutor:
    """The executor that `--executor ray` asks for."""
    return RayExecutor(settings, address=options.address, jobs=options.jobs)


# ------------------------------------------------------------------ inside a worker

_benches: dict[Settings, Workbench] = {}  # a Ray worker carries out many tasks; models stay loaded


class _Worker:
    """The actor that keeps a share of a GPU and works in one of its threads."""

    def __init__(self) -> None:
        self._cancelled = threading.Event()

    def work(self, *words: Any) -> Result:
        return _carry_out(self._cancelled, *words)

    def stop(self) -> None:
        self._cancelled.set()


def _work(*words: Any) -> Result:
    cancelled = threading.Event()  # Ray cancels with an interrupt, which would else end the task wherever it is
    with signals_to(lambda number, frame: cancelled.set(), signal.SIGINT):
        return _carry_out(cancelled, *words)


def _carry_out(
    cancelled: threading.Event,
    task: Task,
    settings: Settings,
    board: Any,
    fit_ids: list[str],
    *states: Mapping[str, bytes],
) -> Result:
    if settings not in _benches:
        place = Path(settings.checkpoints)
        if not place.parent.is_dir():  # a node that does not share the driver's disk
            place = Path(tempfile.gettempdir()) / "apd-bench-checkpoints"
        _benches[settings] = make_workbench(replace(settings, checkpoints=str(place)))
    carried = replace(task, files=dict(zip(fit_ids, states, strict=True)) or None)
    report = at_most_every(_REPORT_EVERY, lambda progress: board.say.remote(task.id, astuple(progress)))

    def watch(progress: Progress) -> None:
        if cancelled.is_set():
            raise Interrupted
        report(progress)

    return guarded(_benches[settings], carried, watch)
