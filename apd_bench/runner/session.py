"""One run from a resolved suite to its report: the store is locked, an executor made, the driver let loose."""

import json
import os
import sys
from dataclasses import replace
from importlib.util import find_spec
from textwrap import shorten
from types import FunctionType

from apd_bench.core.errors import MissingPrerequisite, UsageError
from apd_bench.core.files import atomic_write, usable_cores
from apd_bench.core.identity import digest
from apd_bench.core.options import EXECUTORS, RunOptions
from apd_bench.core.registry import plugin_files
from apd_bench.core.specs import Suite
from apd_bench.core.targets import resolve as resolve_target
from apd_bench.records.store import Store
from apd_bench.runner.driver import Driver
from apd_bench.runner.executor import Executor, InProcess
from apd_bench.runner.log import LogReporter, Several
from apd_bench.runner.parts import deal
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.pool import Pool
from apd_bench.runner.report import RunReport, choose
from apd_bench.runner.reporter import JsonReporter, NotebookReporter, PlainReporter, Reporter
from apd_bench.runner.selection import describe, resolve
from apd_bench.runner.tasks import STAGES, Settings
from apd_bench.suites import load_suite

TINY = 64  # images up to this many pixels a side: one thread each in several processes is fastest


def plan_of(options: RunOptions, suite: Suite | None = None) -> Plan:
    """The plan of `suite` (default: that of the options), after loaders and workers were told of data and network."""
    tell_workers(options)
    whole = plan(resolve(suite or load_suite(options.suite), options))
    return whole if options.part is None else deal(whole, *options.part)


def tell_workers(options: RunOptions) -> None:
    """Lets loaders and workers know what the options say about data and network."""
    if options.data is not None:
        os.environ["APD_BENCH_DATA"] = str(options.data)
    if options.offline:
        os.environ |= {"HF_HUB_OFFLINE": "1", "TRANSFORMERS_OFFLINE": "1"}


def make_reporter(options: RunOptions) -> Reporter:
    """The reporters of the options; "auto" is the live view on a terminal and plain lines elsewhere."""
    shown = _display(options)
    return shown if options.log is None else Several(shown, LogReporter(options.log))


def _display(options: RunOptions) -> Reporter:
    display = "none" if options.quiet else options.display
    if display in ("auto", "rich") and in_notebook():
        return NotebookReporter()
    if display == "auto":
        display = "rich" if sys.stderr.isatty() and os.environ.get("TERM") != "dumb" else "plain"
    if display == "rich":
        from apd_bench.runner.live import LiveReporter

        return LiveReporter(store=Store(options.store))
    kinds: dict[str, type[Reporter]] = {"plain": PlainReporter, "json": JsonReporter, "none": Reporter}
    return kinds[display]()


def in_notebook() -> bool:
    """Whether this process is the kernel of a notebook."""
    shell = getattr(sys.modules.get("IPython"), "get_ipython", lambda: None)()
    return hasattr(shell, "kernel")


def run_plan(
    plan: Plan,
    store: Store,
    options: RunOptions,
    reporter: Reporter,
    *,
    strategy: str = "unfinished",
    only_fits: bool = False,
    workbench: str = STAGES,
    alone: bool = False,
) -> RunReport:
    """Carries out the unfinished part of `plan` with `workbench`, records it in `store` and returns the report.

    `alone`: where the work is done on this machine, it is done in this process.
    Of `options` it takes how the work is done: processes, device, batches, parts of cells, and whether to wait.
    Raises MissingPrerequisite when the store cannot be written or another process is writing to it, and OtherSchema,
    before anything is changed, when it holds what a later version of this program wrote.
    """
    with store.writer(wait=options.wait, on_wait=reporter.message):
        statuses = store.statuses()
        present = {name for name in plan.fits if store.has_fit(name) and not (only_fits and store.fit_problem(name))}
        table = describe(plan.suite)  # the resolved suite, beside the records: `--suite` reads it back
        resolved = store.path / "runs" / f"{digest(table)}.json"
        if not resolved.exists():
            atomic_write(resolved, (json.dumps(table, indent=1, sort_keys=True) + "\n").encode())
        # Where nothing is to be done, neither torch nor a worker is started.
        if only_fits:
            work = sum(fit_id not in present or strategy == "force" for fit_id in plan.fits)
        else:
            work = len(choose(plan.cells, statuses, strategy))
        if work:
            reporter.prepare()
        executor = make_executor(plan, store, options, work, workbench, alone=alone)
        driver = Driver(plan, store, executor, reporter, strategy=strategy, only_fits=only_fits, shard=options.shard)
        if isinstance(executor, InProcess):
            executor.on_tick = driver.tick
        return driver.run()


def make_executor(plan: Plan, store: Store, options: RunOptions, work: int, workbench: str, *, alone: bool) -> Executor:
    """The executor that the options name, for `work` tasks; raises MissingPrerequisite when its package is not here."""
    device = device_for(options) if work else "cpu"
    tiny = all(cell.fit.backbone.image_size <= TINY for cell in plan.cells)
    jobs = 1 if alone else options.jobs or (usable_cores() if tiny and device in ("cpu", "auto") else 1)
    settings = Settings(
        fits=str(store.fits.absolute()),
        checkpoints=str((store.path / "checkpoints").absolute()),
        device=device,
        batch_size=options.batch_size,
        threads=threads_for(tiny, jobs, device),
        plugins=plugin_files(),
        workbench=workbench,
    )
    name = options.executor if work else "local"
    target, package = EXECUTORS[name]
    if package and find_spec(package) is None:
        raise MissingPrerequisite(f"--executor {name} needs {package}.", hint=f"pip install 'apd-bench[{name}]'")
    if name == "local":
        options, work = replace(options, jobs=jobs), min(work, 1) if alone else work
    made: Executor = resolve_target(target, FunctionType)(settings, options, work)
    return made


def local_executor(settings: Settings, options: RunOptions, work: int) -> Executor:
    """The calling process, or a pool of `options.jobs` (at most one a task); on "cuda" as many on each visible GPU."""
    gpus = visible_gpus() if settings.device == "cuda" and work > 1 else []
    jobs = min((options.jobs or 1) * (len(gpus) or 1), work)
    if jobs <= 1 and not gpus:  # a worker that lost its GPU can be replaced, this process cannot
        return InProcess(settings)
    if gpus:
        share = 1 / -(-jobs // len(gpus))
        settings = replace(settings, share=share, threads=max(usable_cores() // jobs, 1))
    return Pool(settings, jobs, gpus=gpus)


def visible_gpus() -> list[str]:
    """The GPUs that this process may use, by what CUDA_VISIBLE_DEVICES calls them."""
    import torch

    count = torch.cuda.device_count()
    named = [name.strip() for name in os.environ.get("CUDA_VISIBLE_DEVICES", "").split(",") if name.strip()]
    return named[:count] if named else [str(number) for number in range(count)]


def threads_for(tiny: bool, jobs: int, device: str) -> int | None:
    """Threads of each worker: one for tiny models, so that no number depends on --jobs; else a fair share."""
    if device not in ("cpu", "auto"):
        return None
    return 1 if tiny else max(usable_cores() // jobs, 1)


def device_for(options: RunOptions) -> str:
    """The device to work on; on a cluster its nodes decide, since this machine may have none of their GPUs."""
    return pick_device(options.device) if options.executor == "local" else options.device or "auto"


def pick_device(asked: str | None) -> str:
    """The device to work on; raises MissingPrerequisite when it is not there."""
    if asked == "cpu":
        return asked
    import torch

    if asked is None:
        return "cuda" if torch.cuda.is_available() else "cpu"
    kind = asked.partition(":")[0]
    if kind == "mps":
        raise UsageError("MPS has no float64, in which budgets are checked.", hint="Use --device cpu.")
    if kind not in ("cpu", "cuda", "xpu"):
        raise UsageError(f"Device '{asked}' is not one of: cpu, cuda, cuda:N, xpu.")
    try:
        torch.zeros(1, device=asked)
    except (RuntimeError, AssertionError) as error:
        raise MissingPrerequisite(
            f"There is no device '{asked}' here ({shorten(str(error), 100)}).", hint="Use --device cpu."
        ) from error
    return asked
