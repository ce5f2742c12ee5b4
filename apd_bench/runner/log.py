"""The log of a run, one JSON object a line: `--log FILE.jsonl`. Imports no torch.

Every line has `event` and `time` (UTC). Beside the events of `--display json`: "epoch" while a fit is trained (`epoch`,
`epochs`, `loss`), "history" when it is (`rows`: the rate and the mean of every term of the loss, for each epoch). Those
of tasks have `id`, `kind`, `label` and `fit`, the name of the fit that they belong to.
"""

import json
from collections.abc import Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.files import utc_now
from apd_bench.records.record import json_form
from apd_bench.runner.reporter import JsonReporter, Reporter, named
from apd_bench.runner.tasks import FitDone, Progress, Result, Task


class LogReporter(JsonReporter):
    """Adds the events of a run to a file, which later runs go on with; MissingPrerequisite where it cannot."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self._path = path
        self._fits: dict[str, Task] = {}
        self._epochs: dict[str, float] = {}
        self._emit("open")

    def task_started(self, task: Task) -> None:
        super().task_started(task)
        if task.kind == "fit":
            self._fits[task.id] = task

    def task_finished(self, task: Task, result: Result) -> None:
        self._fits.pop(task.id, None)
        if isinstance(result, FitDone) and result.card.get("history"):
            self._emit("history", **named(task), rows=result.card["history"])
        super().task_finished(task, result)

    def tick(self, progress: Mapping[str, Progress]) -> None:
        for task_id, item in progress.items():
            if task_id in self._fits and item.done > self._epochs.get(task_id, 0):
                self._epochs[task_id] = item.done
                self._emit("epoch", **named(self._fits[task_id]), epoch=item.done, epochs=item.total, loss=item.loss)
        super().tick(progress)

    def _emit(self, event: str, **values: object) -> None:
        line = json.dumps(json_form({"event": event, "time": utc_now(), **values}), sort_keys=True)
        try:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            with self._path.open("a", encoding="utf-8") as stream:
                stream.write(line + "\n")
        except OSError as error:
            problem = f"Cannot write the log {self._path}: {error.strerror}."
            raise MissingPrerequisite(problem, hint="Choose another file with --log.") from error


class Several(Reporter):
    """Tells several reporters everything."""

    def __init__(self, *reporters: Reporter) -> None:
        for name in (name for name in vars(Reporter) if not name.startswith("_")):
            setattr(self, name, partial(_tell, reporters, name))


def _tell(reporters: Iterable[Reporter], what: str, *words: Any) -> None:
    for reporter in reporters:
        getattr(reporter, what)(*words)
