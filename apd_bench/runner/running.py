"""What is going on in a run, in words: short names of its tasks, and how far each is. Imports no torch."""

import time
from collections.abc import Callable, Mapping

from apd_bench.core.specs import Cell, format_eps
from apd_bench.runner.estimate import cost_of, member_passes, passes_of
from apd_bench.runner.plan import Plan
from apd_bench.runner.tasks import Progress, Task

_PARTS: dict[str, Callable[[Cell], str]] = {  # what is named where it differs within a plan
    "defence": lambda cell: f"+ {cell.defence.label}" if cell.defence else "",
    "knowledge": lambda cell: cell.threat.knowledge.replace("_", "-"),
    "backbone": lambda cell: cell.fit.backbone.name,
    "eps": lambda cell: format_eps(cell.threat.eps, cell.threat.norm),
    "shots": lambda cell: f"{cell.fit.shots} shots",
    "seed": lambda cell: f"seed {cell.fit.seed}",
}


class Names:
    """Short names of what is in a plan: method, dataset, attack, and of the rest only what differs within it."""

    def __init__(self, plan: Plan) -> None:
        cells = [cell for cell in plan.cells if cell.fit.method.trains] or list(plan.cells)
        self._differs = [name for name, part in _PARTS.items() if len({part(cell) for cell in cells}) > 1]

    def row(self, cell: Cell) -> str:
        """The row of a table that the cell belongs to: all of its datasets and seeds."""
        return " ".join(filter(None, [cell.fit.method.name, *self._rest(cell, "seed")]))

    def task(self, task: Task) -> str:
        """What a task does."""
        if task.cell is None:
            what = ("training" if task.fit.method.trains else "preparing"), task.fit.method.name, task.fit.dataset.name
            return " ".join([*what, f"seed {task.fit.seed}"] if "seed" in self._differs else what)
        cell, part = task.cell, "" if task.shard is None else f"part {task.shard[0] + 1}/{task.shard[1]}"
        tested = cell.dataset.name + ("" if cell.classes == "all" else f"/{cell.classes}")
        words = [cell.fit.method.name, tested, cell.attack.label, *self._rest(cell), part]
        return " ".join(word for word in words if word)

    def _rest(self, cell: Cell, *but: str) -> list[str]:
        """What else tells the cell from others; a method that learns nothing has neither seed nor shots."""
        left_out = (*but, *(() if cell.fit.method.trains else ("seed", "shots")))
        return [_PARTS[name](cell) for name in self._differs if name not in left_out]


class Running:
    """The tasks under way."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.progress: Mapping[str, Progress] = {}
        self._since: dict[str, float] = {}
        self._phases: dict[str, tuple[str, float, float]] = {}  # and when it began: passes made, samples to do

    def begin(self, task: Task) -> None:
        """A task was handed to a worker."""
        self.tasks[task.id], self._since[task.id] = task, time.monotonic()

    def end(self, task: Task) -> None:
        """Its result is on disk."""
        for held in (self.tasks, self._since, self._phases):
            held.pop(task.id, None)

    def tick(self, progress: Mapping[str, Progress]) -> None:
        """Takes note of how far the tasks are."""
        self.progress = dict(progress)
        for task_id, item in self.progress.items():
            if task_id not in self._phases or self._phases[task_id][0] != item.phase:
                self._phases[task_id] = item.phase, item.passes, item.total - item.done

    def seconds(self, task_id: str) -> float:
        """How long a task has been under way."""
        return time.monotonic() - self._since.get(task_id, time.monotonic())

    def share(self, task_id: str) -> float:
        """How much of a task is done: by samples, or by passes where an attack works on all samples at once."""
        task, item = self.tasks[task_id], self.progress.get(task_id, Progress())
        share = item.done / item.total if item.total else 0.0
        if task.cell is not None and item.passes:
            share = max(share, item.passes * (1 if task.shard is None else task.shard[1]) / sum(passes_of(task.cell)))
        return min(share, 1.0)

    def says(self, task_id: str) -> str:
        """How far a task is: `2/4 apgd-t 35 %, 12/20 samples, 8 broken`; empty before anything is known."""
        task, item = self.tasks[task_id], self.progress.get(task_id, Progress())
        if not item.total:
            return item.phase
        what = "epochs" if task.cell is None else "samples"
        parts = [self._phase(task, item), f"{item.done:g}/{item.total:g} {what}"]
        parts += [f"{item.broken:g} broken" if item.broken else "", f"loss {item.loss:.3g}" if item.loss else ""]
        return ", ".join(part for part in parts if part)

    def _phase(self, task: Task, item: Progress) -> str:
        """The phase, and of a suite's member which part of its passes is done, if every sample resists it."""
        text, passes, standing = self._phases.get(task.id, ("", 0.0, 0.0))
        each = member_passes(task.cell.attack, item.phase.rpartition(" ")[2]) if task.cell is not None else 0.0
        if text != item.phase or not each or standing <= 0:
            return item.phase
        return f"{item.phase} {min((item.passes - passes) / (each * standing), 1):.0%}"


def cost_of_task(task: Task) -> float:
    """The cost of a task in forward passes of one image."""
    return cost_of(task.cell or task.fit) / (1 if task.shard is None else task.shard[1])
