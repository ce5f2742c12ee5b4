"""The order of work: what depends on what, what is worth starting first, and what must run alone."""

from __future__ import annotations

import heapq
from collections.abc import Callable, Iterable
from itertools import count

from apd_bench.runner.tasks import Task
from apd_bench.specs import Cell, Fit


class WorkQueue:
    """Fits and cells that wait; a cell becomes ready when its fit is done.

    Backbones come one after the other; within one, what takes long starts early, so that the end of a run does not
    wait for one last AutoAttack. A fit is as urgent as the longest cell that waits for it.
    """

    def __init__(self, cells: Iterable[Cell], fits: Iterable[Fit], cost: Callable[[Cell], float]) -> None:
        self._cost = cost
        self._ready: list[tuple[int, int, float, int, Task]] = []
        self._number = count()
        self._backbones: dict[str, int] = {}
        self._waiting: dict[str, list[Cell]] = {}
        self._alone: list[Task] = []
        missing = {fit.id: fit for fit in fits}
        for cell in cells:
            if cell.fit.id in missing:
                self._waiting.setdefault(cell.fit.id, []).append(cell)
            else:
                self._push(Task(fit=cell.fit, cell=cell), cost(cell))
        for fit_id, fit in missing.items():
            self._push(Task(fit=fit), max((cost(cell) for cell in self._waiting.get(fit_id, ())), default=0.0))

    def __len__(self) -> int:
        return len(self._ready) + len(self._alone) + sum(map(len, self._waiting.values()))

    def cells(self) -> list[Cell]:
        """All cells that are still to be started."""
        waiting = [cell for cells in self._waiting.values() for cell in cells]
        return waiting + [task.cell for task in self._tasks() if task.cell is not None]

    def fits(self) -> list[Fit]:
        """All fits that are still to be started."""
        return [task.fit for task in self._tasks() if task.cell is None]

    def next(self, running: int) -> Task | None:
        """The next task to start while `running` others are at work, or None when none may start now."""
        if self._alone:
            return self._alone.pop() if running == 0 else None
        return heapq.heappop(self._ready)[-1] if self._ready else None

    def fit_done(self, fit: Fit) -> None:
        """Makes the cells ready that waited for `fit`."""
        for cell in self._waiting.pop(fit.id, ()):
            self._push(Task(fit=fit, cell=cell), self._cost(cell))

    def fit_failed(self, fit: Fit) -> list[Cell]:
        """Removes and returns the cells that waited for `fit`."""
        return self._waiting.pop(fit.id, [])

    def again(self, task: Task, *, alone: bool) -> None:
        """Puts a task back; `alone`: it ran when a worker died, and runs without company now."""
        if alone:
            self._alone.append(task)
        else:
            self._push(task, float("inf"))

    def _tasks(self) -> list[Task]:
        return [entry[-1] for entry in self._ready] + self._alone

    def _push(self, task: Task, cost: float) -> None:
        # Fits first within a backbone: they are short, and everything waits for them.
        place = self._backbones.setdefault(task.fit.backbone.name, len(self._backbones))
        heapq.heappush(self._ready, (place, task.kind == "cell", -cost, next(self._number), task))
