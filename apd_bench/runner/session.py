"""One run from a resolved suite to its report: the store is locked, an executor made, the driver let loose."""

from __future__ import annotations

import json
from pathlib import Path
from textwrap import shorten

from apd_bench.core.errors import MissingPrerequisite, UsageError
from apd_bench.core.files import atomic_write
from apd_bench.core.identity import digest
from apd_bench.core.registry import plugin_files
from apd_bench.records.store import Store
from apd_bench.runner.driver import Driver
from apd_bench.runner.executor import Executor, InProcess, usable_cores
from apd_bench.runner.machine import Machine
from apd_bench.runner.plan import Plan
from apd_bench.runner.pool import Pool
from apd_bench.runner.report import RunReport, choose
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.selection import describe
from apd_bench.runner.tasks import Settings

TINY = 64  # images up to this many pixels a side: one thread each in several processes is fastest


def run_plan(
    plan: Plan,
    store: Store,
    machine: Machine,
    reporter: Reporter,
    *,
    strategy: str = "unfinished",
    only_fits: bool = False,
) -> RunReport:
    """Does what is left of `plan`, recorded in `store`, and says what happened.

    Raises MissingPrerequisite when the store cannot be written or another process is writing to it, and NewerSchema,
    before anything is changed, when it holds what a later version of this program wrote.
    """
    with store.writer(wait=machine.wait, on_wait=reporter.message):
        statuses = store.statuses()
        present = {
            fit_id for fit_id in plan.fits if store.has_fit(fit_id) and not (only_fits and store.fit_problem(fit_id))
        }
        write_resolved(plan, store)
        # Where nothing is to be done, neither torch nor a worker is started.
        if only_fits:
            work = sum(fit_id not in present or strategy == "force" for fit_id in plan.fits)
        else:
            work = len(choose(plan.cells, statuses, strategy))
        if work:
            reporter.prepare()
        device = device_for(machine) if work else "cpu"
        executor = make_executor(plan, store, machine, device, work)
        driver = Driver(
            plan, store, executor, reporter, strategy=strategy, only_fits=only_fits, shard_size=machine.shard_size
        )
        if isinstance(executor, InProcess):
            executor.on_tick = driver.tick
        return driver.run()


def make_executor(plan: Plan, store: Store, machine: Machine, device: str, work: int) -> Executor:
    """Either this process, or a pool of `machine.jobs` (at most one per cell that is to be measured)."""
    tiny = all(cell.fit.backbone.image_size <= TINY for cell in plan.cells)
    jobs = machine.jobs or (usable_cores() if tiny and device in ("cpu", "auto") else 1)
    settings = Settings(
        fits=str(store.fits.absolute()),
        checkpoints=str((store.path / "checkpoints").absolute()),
        device=device,
        batch_size=machine.batch_size,
        threads=threads_for(tiny, jobs, device),
        plugins=plugin_files(),
    )
    if machine.executor == "ray" and work:
        return _ray(settings, machine)
    if min(jobs, work) <= 1:
        return InProcess(settings, workbench=machine.workbench)
    return Pool(settings, min(jobs, work), workbench=machine.workbench)


def _ray(settings: Settings, machine: Machine) -> Executor:
    try:
        from apd_bench.runner.ray_executor import RayExecutor
    except ImportError as error:
        raise MissingPrerequisite("--executor ray needs Ray.", hint="pip install 'apd-bench[ray]'") from error
    return RayExecutor(settings, address=machine.address, jobs=machine.jobs, workbench=machine.workbench)


def threads_for(tiny: bool, jobs: int, device: str) -> int | None:
    """Threads of each worker: one for tiny models, so that no number depends on --jobs; else a fair share."""
    if device not in ("cpu", "auto"):
        return None
    return 1 if tiny else max(usable_cores() // jobs, 1)


def device_for(machine: Machine) -> str:
    """The device to work on; on Ray the cluster decides, since this machine may have none of its GPUs."""
    if machine.executor == "ray":
        return machine.device or "auto"
    return pick_device(machine.device)


def pick_device(asked: str | None) -> str:
    """The device to work on; raises MissingPrerequisite when it is not there."""
    if asked == "cpu":
        return asked
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = asked.partition(":")[0]
    if kind not in ("cpu", "cuda", "mps", "xpu"):
        raise UsageError(f"Device '{asked}' is not one of: cpu, cuda, cuda:N, mps, xpu.")
    try:
        torch.zeros(1, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise MissingPrerequisite(
            f"There is no device '{asked}' here ({shorten(str(error), 100)}).", hint="Use --device cpu."
        ) from error
    return asked


def write_resolved(plan: Plan, store: Store) -> Path:
    """Writes the resolved suite beside the records, named by its content, as a suite that `--suite` reads back."""
    table = describe(plan.suite)
    path = store.path / "runs" / f"{digest(table)}.json"
    if not path.exists():
        atomic_write(path, (json.dumps(table, indent=1, sort_keys=True) + "\n").encode())
    return path
