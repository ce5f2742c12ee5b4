"""Fits and cells as tasks of a Ray cluster: an existing one, or one started here for several GPUs or cores.

Ray schedules, and repeats tasks whose worker or node died; the driver stays the only writer of the store. Prompt states
travel with the tasks, so that workers need no shared disk.
"""

from __future__ import annotations

import math
import socket
import tempfile
from collections.abc import Mapping
from concurrent.futures import Future
from dataclasses import replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import RayError, TaskCancelledError

from apd_bench.errors import MissingPrerequisite, UsageError
from apd_bench.runner.executor import STAGES, guarded, make_workbench
from apd_bench.runner.plan import fits_of
from apd_bench.runner.tasks import Failure, Progress, Result, Settings, Stopped, Task, Workbench

_RETRIES = 3  # of a task whose worker or node died; an error of the task itself is a result and is not repeated


class RayExecutor:
    """Tasks on a Ray cluster, each with a GPU (or a share of one, where more `jobs` than GPUs are asked for) or a core.

    `settings.device` "auto" means: GPUs where the cluster has them, whatever the driver's own machine has.
    """

    def __init__(
        self, settings: Settings, *, address: str | None = None, jobs: int | None = None, workbench: str = STAGES
    ) -> None:
        self._workbench, self._jobs = workbench, jobs
        self._refs: dict[str, Any] = {}
        self._states: dict[str, Any] = {}
        self._began_ray = not ray.is_initialized()
        if self._began_ray:
            _connect(address, jobs, settings.threads)
        there = float(ray.cluster_resources().get("GPU", 0))
        device, self._gpus = share_of_gpus(settings.device, jobs, there)
        self._settings = replace(settings, device=device, threads=None if self._gpus else settings.threads)
        self._function = ray.remote(_work).options(num_cpus=1, num_gpus=self._gpus, max_retries=_RETRIES)

    @property
    def slots(self) -> int:
        """How many tasks the cluster can run now; nodes may come and go."""
        if self._jobs is not None:
            return self._jobs
        have = ray.cluster_resources()
        return max(int(have.get("GPU", 0) / self._gpus if self._gpus else have.get("CPU", 0)), 1)

    def submit(self, task: Task) -> Future[Result]:
        """Hands the task to the cluster."""
        needed = () if task.cell is None else fits_of(task.cell)
        states = {fit.id: self._state(fit.id) for fit in needed}
        ref = self._function.remote(task, self._settings, self._workbench, list(states), *states.values())
        self._refs[task.id] = ref
        result: Future[Result] = Future()

        def finished(done: Future[Any]) -> None:
            self._refs.pop(task.id, None)
            result.set_result(_result_of(done))

        ref.future().add_done_callback(finished)
        return result

    def progress(self) -> Mapping[str, Progress]:
        """Nothing: workers elsewhere do not report between start and end."""
        return {}

    def stop(self) -> None:
        """Cancels what is under way; finished cells and shards are stored already."""
        for ref in list(self._refs.values()):
            ray.cancel(ref, force=False)

    def revive(self) -> None:
        """Nothing to do: Ray replaces its own workers."""

    def close(self, *, kill: bool = False) -> None:
        """Leaves the cluster, and ends it when it was started here."""
        for ref in list(self._refs.values()) if kill else ():
            ray.cancel(ref, force=True)
        if self._began_ray:
            ray.shutdown()

    def _state(self, fit_id: str) -> Any:
        """The files of a fit in Ray's object store, put there once."""
        if fit_id not in self._states:
            folder = Path(self._settings.fits) / fit_id
            files = {path.name: path.read_bytes() for path in folder.iterdir() if path.name != "manifest.json"}
            self._states[fit_id] = ray.put(files)
        return self._states[fit_id]


def share_of_gpus(device: str, jobs: int | None, there: float) -> tuple[str, float]:
    """The device of the workers and the GPUs that each task takes, on a cluster that has `there` GPUs.

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
    return device, math.floor(there / jobs * 1e4) / 1e4 if jobs and jobs > there else 1.0


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
            f"There is no Ray cluster at '{address or 'local'}': {str(error).splitlines()[0]}",
            hint="Start one (ray start --head), or leave --address out to start one here.",
        ) from error


def _reach(address: str | None) -> None:
    """Raises OSError when nothing listens at "host:port": Ray itself would try for minutes."""
    host, colon, port = (address or "").removeprefix("ray://").rpartition(":")
    if colon and port.isdecimal():
        socket.create_connection((host, int(port)), timeout=5).close()


def _result_of(done: Future[Any]) -> Result:
    error = done.exception()
    if error is None:
        result: Result = done.result()
        return result
    if isinstance(error, TaskCancelledError):
        return Stopped()
    return Failure.of(error)


# ------------------------------------------------------------------ inside a worker

_benches: dict[tuple[Settings, str], Workbench] = {}  # a Ray worker carries out many tasks; models stay loaded


def _work(task: Task, settings: Settings, workbench: str, fit_ids: list[str], *states: Mapping[str, bytes]) -> Result:
    key = (settings, workbench)
    if key not in _benches:
        place = Path(settings.checkpoints)
        if not place.parent.is_dir():  # a node that does not share the driver's disk
            place = Path(tempfile.gettempdir()) / "apd-bench-checkpoints"
        _benches[key] = make_workbench(workbench, replace(settings, checkpoints=str(place)))
    carried = replace(task, files=dict(zip(fit_ids, states, strict=True)) or None)
    return guarded(_benches[key], carried, _watch)


def _watch(progress: Progress) -> None:
    """Ray interrupts a cancelled task by itself; there is nobody to report to."""
