"""The one process that plans, writes and reports: hands tasks to an executor and turns results into records.

It is the only writer of the store. What is done is on disk before the next thing happens, so it may die at any moment
and the next run goes on from there.
"""

import signal
import time
from collections import Counter, defaultdict
from collections.abc import Mapping
from concurrent.futures import FIRST_COMPLETED, BrokenExecutor, Future, wait
from types import FrameType
from typing import Any

from apd_bench.core.files import utc_now
from apd_bench.core.specs import Cell, Fit
from apd_bench.records.environment import describe_environment
from apd_bench.records.measured import Measured
from apd_bench.records.record import Record
from apd_bench.records.store import Store
from apd_bench.runner.executor import Executor, signals_to
from apd_bench.runner.plan import Plan, fits_of
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.report import RunReport, choose
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.shards import SHARD, Shard, load_shard, save_shard, shards_of
from apd_bench.runner.tasks import Failure, FitDone, Result, Stopped, Task

_TICK = 0.25
_DEATHS_ALLOWED = 2


class Driver:
    """Runs a plan: `Driver(plan, store, executor, reporter).run()`, inside `with store.writer()`."""

    def __init__(
        self,
        plan: Plan,
        store: Store,
        executor: Executor,
        reporter: Reporter,
        *,
        strategy: str = "unfinished",
        only_fits: bool = False,
        shard: int = SHARD,
    ) -> None:
        self.plan, self.store, self.executor, self.reporter = plan, store, executor, reporter
        self.strategy, self.only_fits, self.shard = strategy, only_fits, shard
        self.report = RunReport(planned=len(plan.cells))
        self._stopping = False
        self._deaths: Counter[str] = Counter()
        self._repeated: set[str] = set()
        self._running: dict[Future[Result], Task] = {}
        self._environment: dict[str, Any] = {}
        self._done: defaultdict[str, list[Cell]] = defaultdict(list)  # by fit
        self._last_tick = 0.0

    def run(self) -> RunReport:
        """Carries out the remaining tasks and reports; raises errors that end the whole run (a full disk)."""
        began = time.perf_counter()
        cells = self._cells()
        self._environment = describe_environment() if cells else {}
        missing = self._missing_fits(cells)
        # All shards of a cell may have been written just before the last run was killed: it is merged now.
        cells = [cell for cell in cells if not self.only_fits and (self._shards_to_do(cell) or not self._merge(cell))]
        queue = WorkQueue(cells, missing, shards=self._shards_to_do)
        self.report.to_do = len(cells)
        self.report.fits_to_do = sum(fit.method.trains for fit in missing)
        self.reporter.start(self.report, queue, self.plan)
        failed = True
        try:
            with signals_to(self._interrupt, signal.SIGINT, signal.SIGTERM):
                self._loop(queue)
            failed = False
        finally:
            self.executor.close(kill=failed)
            self.report.seconds = time.perf_counter() - began
            self.report.interrupted = self._stopping and (len(queue) > 0 or self.report.cancelled > 0)
            self.reporter.finish(self.report)
        return self.report

    def tick(self) -> None:
        """Shows the progress of the running tasks; cheap enough to be called for every batch."""
        now = time.perf_counter()
        if now - self._last_tick >= _TICK:
            self._last_tick = now
            self.reporter.tick(self.executor.progress())

    # ---------------------------------------------------------------- what is left

    def _cells(self) -> list[Cell]:
        statuses = self.store.statuses()
        self.report.damaged += self.store.set_damaged_aside()
        cells = choose(self.plan.cells, statuses, self.strategy)
        for cell in self.plan.cells:
            if statuses.get(cell.id) == "success":
                self.report.already_done += 1
                self._done[cell.fit.id].append(cell)
        for cell in cells if self.strategy == "force" else ():
            self.store.drop_checkpoint(cell.id)
        return cells

    def _missing_fits(self, cells: list[Cell]) -> list[Fit]:
        fits = self.plan.fits if self.only_fits else {fit.id: fit for cell in cells for fit in fits_of(cell)}
        missing = []
        for fit_id, fit in fits.items():
            problem = self.store.fit_problem(fit_id)
            if problem:
                moved = self.store.set_aside(self.store.fit_path(fit_id))
                self.report.damaged.append(f"The fit {fit_id} is damaged ({problem}); moved to {moved.name}.")
            if problem is not None or self.strategy == "force":
                missing.append(fit)
        lost = {fit.id for fit in missing}
        for cell in cells:
            if any(fit.id in lost for fit in fits_of(cell)):
                self.store.drop_checkpoint(cell.id)  # what was done of it belongs to another prompt state
        self.report.fits_reused = sum(fit.method.trains and fit.id not in lost for fit in fits.values())
        return missing

    # ---------------------------------------------------------------- shards

    def _shards_to_do(self, cell: Cell) -> list[Shard | None]:
        folder, shards = self.store.checkpoint_path(cell.id), shards_of(cell, self.shard)
        return [shard for shard in shards if shard is None or load_shard(folder, shard) is None]

    def _merge(self, cell: Cell) -> bool:
        """Makes the record of a cell when all of its shards are there, and says whether they are."""
        folder = self.store.checkpoint_path(cell.id)
        parts = [load_shard(folder, shard) for shard in shards_of(cell, self.shard) if shard is not None]
        whole = [part for part in parts if part is not None]
        if not parts or len(whole) < len(parts):
            return False
        self._success(cell, Measured.merge(whole))
        return True

    def _success(self, cell: Cell, result: Measured) -> None:
        self._put(cell, "success", result)
        self.store.drop_checkpoint(cell.id)
        self.report.computed.append(cell.id)

    # ---------------------------------------------------------------- the loop

    def _loop(self, queue: WorkQueue) -> None:
        while self._running or (len(queue) and not self._stopping):
            while not self._stopping and len(self._running) < self.executor.slots:
                if any(self._deaths[task.id] for task in self._running.values()):
                    break  # a task that was there when a worker died runs alone
                task = queue.next(len(self._running))
                if task is None:
                    break
                self.reporter.task_started(task)
                self._running[self.executor.submit(task)] = task
            if not self._running:
                continue
            done, _ = wait(self._running, timeout=_TICK, return_when=FIRST_COMPLETED)
            self.tick()
            broken = [future for future in done if isinstance(future.exception(), BrokenExecutor)]
            for future in done - set(broken):
                self._finished(queue, self._running.pop(future), future)
            if broken:
                self._worker_died(queue, [self._running.pop(future) for future in broken])

    def _worker_died(self, queue: WorkQueue, tasks: list[Task]) -> None:
        self.report.deaths += 1
        for task in tasks:
            self._deaths[task.id] += 1
            if self._deaths[task.id] < _DEATHS_ALLOWED:
                queue.again(task, alone=True)
            else:
                message = "the worker process died twice while it worked on this, the second time alone"
                hint = "This is mostly a lack of memory: try a smaller --batch-size or fewer --jobs."
                self._failed(queue, task, Failure(type="WorkerDied", message=message, hint=hint))
        self.reporter.message(f"a worker process died; {len(tasks)} unfinished tasks are tried again, one at a time")

    def _finished(self, queue: WorkQueue, task: Task, future: Future[Result]) -> None:
        error = future.exception()
        result = Failure.of(error) if error is not None else future.result()
        self._deaths.pop(task.id, None)
        if isinstance(result, FitDone):
            self.store.put_fit(task.fit.id, result.files)
            records = [self.store.record(cell.id) for cell in self._done[task.fit.id]]
            others = sum(record.done and not self.store.has_prompts_of(record) for record in records)
            if others and self.strategy != "force":
                self.reporter.message(
                    f"{task.fit.label}: training it again ended at other prompts than {others} stored cells were "
                    "measured with; --force measures those anew"
                )
            self.report.fits_computed += [task.fit.id] if task.fit.method.trains else []
            queue.fit_done(task.fit)
        elif isinstance(result, Measured) and task.cell is not None:
            if task.shard is None:
                self._success(task.cell, result)
            else:
                save_shard(self.store.checkpoint_path(task.cell.id), task.shard, result)
                self._merge(task.cell)
        elif isinstance(result, Stopped):
            self.report.cancelled += 1
            if task.cell is not None:
                self._put(task.cell, "cancelled", None)
        elif isinstance(result, Failure) and result.sticky and task.id not in self._repeated:
            self._repeated.add(task.id)
            queue.again(task, alone=False)
            self.reporter.message(f"{task.label}: {result.message}; it is tried once more, by a new worker")
        elif isinstance(result, Failure):
            self._failed(queue, task, result)
        self.reporter.task_finished(task, result)

    def _failed(self, queue: WorkQueue, task: Task, failure: Failure) -> None:
        cells = [task.cell] if task.cell is not None else queue.fit_failed(task.fit)
        for cell in cells:
            self._put(cell, "error", None, failure.as_error(task.kind))
            self.report.failures.setdefault(cell.id, failure)
        if not cells:
            self.report.failures[task.fit.id] = failure

    def _put(self, cell: Cell, status: str, result: Measured | None, error: Mapping[str, Any] | None = None) -> None:
        facts = {} if result is None else result.facts()
        facts["environment"] = {**self._environment, **facts.get("environment", {})}
        record = Record(id=cell.id, cell=cell, status=status, created=utc_now(), error=error, **facts)
        self.store.put(record, None if result is None else result.outcomes)

    def _interrupt(self, number: int, frame: FrameType | None) -> None:
        """The first Ctrl-C (or termination request) stops at the next sample batch, the second at once."""
        if self._stopping:
            raise KeyboardInterrupt
        self._stopping = True
        self.executor.stop()
        self.reporter.message("stopping after the current batch of samples; press Ctrl-C again to stop at once")
