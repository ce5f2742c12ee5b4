"""The order of work: what depends on what, what is worth starting first, and what must run alone."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count

from apd_bench.runner.plan import fits_of, source_fit
from apd_bench.runner.shards import Shard
from apd_bench.runner.tasks import Task
from apd_bench.specs import Cell, Fit


class WorkQueue:
    """Fits and cells that wait; a cell becomes ready, shard by shard, when its fits are done.

    Backbones come one after the other; within one, what takes long starts early, so that the end of a run does not
    wait for one last AutoAttack. A fit is as urgent as the longest cell that waits for it.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        fits: Iterable[Fit],
        cost: Callable[[Cell], float],
        shards: Callable[[Cell], list[Shard | None]] = lambda cell: [None],
    ) -> None:
        self._cost, self._shards = cost, shards
        self._ready: list[tuple[int, int, float, int, Task]] = []
        self._number = count()
        self._backbones: dict[str, int] = {}
        self._alone: list[Task] = []
        self._waiting: dict[str, Cell] = {}
        self._lacks: dict[str, set[str]] = {}
        fits = list(fits)
        self._wanted_by: dict[str, list[Cell]] = {fit.id: [] for fit in fits}
        for cell in cells:
            lacks = {fit.id for fit in fits_of(cell)} & self._wanted_by.keys()
            if not lacks:
                self._push_cell(cell)
                continue
            self._waiting[cell.id], self._lacks[cell.id] = cell, lacks
            for fit_id in lacks:
                self._wanted_by[fit_id].append(cell)
        for fit in fits:
            self._push(Task(fit=fit), max(map(cost, self._wanted_by[fit.id]), default=0.0))

    def __len__(self) -> int:
        return len(self._ready) + len(self._alone) + len(self._waiting)

    def cells(self) -> list[Cell]:
        """All cells of which something is still to be started."""
        started = {task.cell.id: task.cell for task in self._tasks() if task.cell is not None}
        return [*self._waiting.values(), *started.values()]

    def fits(self) -> list[Fit]:
        """All fits that are still to be started."""
        return [task.fit for task in self._tasks() if task.cell is None]

    def next(self, running: int) -> Task | None:
        """The next task to start while `running` others are at work, or None when none may start now."""
        if self._alone:
            return self._alone.pop() if running == 0 else None
        return heapq.heappop(self._ready)[-1] if self._ready else None

    def fit_done(self, fit: Fit) -> None:
        """Makes the cells ready that waited for `fit` and for nothing else."""
        for cell in self._wanted_by.pop(fit.id, ()):
            lacks = self._lacks[cell.id]
            lacks.discard(fit.id)
            if not lacks and cell.id in self._waiting:
                self._push_cell(self._waiting.pop(cell.id))

    def fit_failed(self, fit: Fit) -> list[Cell]:
        """Removes and returns the cells that waited for `fit`."""
        wanted = self._wanted_by.pop(fit.id, [])
        return [self._waiting.pop(cell.id) for cell in wanted if cell.id in self._waiting]

    def again(self, task: Task, *, alone: bool) -> None:
        """Puts a task back; `alone`: it ran when a worker died, and runs without company now."""
        if alone:
            self._alone.append(task)
        else:
            self._push(task, float("inf"))

    def _tasks(self) -> list[Task]:
        return [entry[-1] for entry in self._ready] + self._alone

    def _push_cell(self, cell: Cell) -> None:
        parts = self._shards(cell)
        for shard in parts:
            self._push(
                Task(fit=cell.fit, cell=cell, shard=shard, source=source_fit(cell)), self._cost(cell) / len(parts)
            )

    def _push(self, task: Task, cost: float) -> None:
        # Fits first within a backbone: they are short, and everything waits for them.
        place = self._backbones.setdefault(task.fit.backbone.name, len(self._backbones))
        heapq.heappush(self._ready, (place, task.kind == "cell", -cost, next(self._number), task))
