"""The order of work: what depends on what, what is worth starting first, and what must run alone."""

import heapq
from collections.abc import Callable, Iterable
from itertools import count

from apd_bench.core.specs import Cell, Fit
from apd_bench.runner.estimate import cost_of, samples_of
from apd_bench.runner.plan import fits_of
from apd_bench.runner.shards import Shard
from apd_bench.runner.tasks import Task

LONG = 2000.0  # an attack that costs a sample as many forward passes or more is put off: AutoAttack


class WorkQueue:
    """Fits and cells that wait; a cell becomes ready, shard by shard, when its fits are done.

    Backbones come one after the other. Of each, all that is quick comes first, so that soon every method has numbers:
    set by set, those with least work first, and as soon as a fit is done its short attacks. Long attacks follow, the
    longest first and the set with most work first, so that no run waits for one last AutoAttack.
    """

    def __init__(
        self,
        cells: Iterable[Cell],
        fits: Iterable[Fit],
        shards: Callable[[Cell], list[Shard | None]] = lambda cell: [None],
    ) -> None:
        self._shards = shards
        self._ready: list[tuple[int, bool, int, bool, float, int, Task]] = []
        self._number = count()
        cells, fits = list(cells), list(fits)
        self._backbones = _places(dict.fromkeys(fit.backbone.name for fit in (*(cell.fit for cell in cells), *fits)))
        work: dict[str, float] = {}
        for cell in cells:
            work[cell.dataset.name] = work.get(cell.dataset.name, 0.0) + cost_of(cell)
        self._sets = _places(sorted(work, key=work.__getitem__))
        self._alone: list[Task] = []
        self._waiting: dict[str, Cell] = {}
        self._lacks: dict[str, set[str]] = {}
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
            place = min((self._sets[cell.dataset.name] for cell in self._wanted_by[fit.id]), default=0)
            self._push(Task(fit=fit), place, cost_of(fit))

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
            self._push(task, -1, 0.0)

    def _tasks(self) -> list[Task]:
        return [entry[-1] for entry in self._ready] + self._alone

    def _push_cell(self, cell: Cell) -> None:
        parts, place, cost = self._shards(cell), self._sets[cell.dataset.name], cost_of(cell)
        long = cost >= LONG * max(samples_of(cell), 1)
        for shard in parts:
            task = Task(fit=cell.fit, cell=cell, shard=shard)
            self._push(task, -place if long else place, (-cost if long else cost) / len(parts), long=long)

    def _push(self, task: Task, place: int, cost: float, *, long: bool = False) -> None:
        backbone = self._backbones[task.fit.backbone.name]
        heapq.heappush(self._ready, (backbone, long, place, task.kind == "fit", cost, next(self._number), task))


def _places(names: Iterable[str]) -> dict[str, int]:
    return {name: place for place, name in enumerate(names)}
