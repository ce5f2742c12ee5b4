"""The runner for Python: `run(suite, ...)` and `load_records(path)`. Importing it does not import torch."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.options import Source, choice, options_from_python
from apd_bench.core.specs import Suite
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record
from apd_bench.records.store import Store
from apd_bench.runner.executor import environment
from apd_bench.runner.report import STRATEGIES, RunReport
from apd_bench.runner.session import make_reporter, plan_of, run_plan

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Records(Sequence[Record]):
    """Stored records, in the order of their ids; `report` says what the run did that made them, if one did."""

    store: Store
    items: tuple[Record, ...]
    report: RunReport | None = None

    @overload
    def __getitem__(self, place: int) -> Record: ...
    @overload
    def __getitem__(self, place: slice) -> tuple[Record, ...]: ...
    def __getitem__(self, place: int | slice) -> Record | tuple[Record, ...]:
        return self.items[place]

    def __len__(self) -> int:
        return len(self.items)

    def __iter__(self) -> Iterator[Record]:
        return iter(self.items)

    def outcomes(self, record: Record) -> Outcomes:
        """What happened to each sample of a record."""
        return self.store.outcomes(record.id, record)

    def to_pandas(self) -> pd.DataFrame:
        """One row a record: the choices that make the cell, status, metrics, suspect marks, seconds and passes."""
        import pandas as pd

        return pd.DataFrame([_row(record) for record in self.items])


def load_records(path: str | Path) -> Records:
    """All readable records of the store at `path`; raises MissingPrerequisite when there is none."""
    store = Store(path)
    if not store.exists():
        raise MissingPrerequisite(f"There are no records in {path}.", hint=f"Run: apd-bench run --results {path}")
    return Records(store, tuple(store.records()))


def run(suite: str | Suite = "embedded", *, strategy: str = "unfinished", **given: Any) -> Records:
    """Runs the unfinished cells of a suite and returns the records of all of its cells.

    `suite` is a name, a file or a Suite. All further options are those of the command line by the names of
    `apd_bench.core.options.RunOptions`, written as there ("apd,apt", "all", "!food", "1-3") or as Python values:
    `methods`, `datasets`, `attacks`, `backbones`, `eps`, `seeds`, `shots`, `limit`, `settings` (KEY=VALUE texts),
    `results`, `data`, `jobs`, `device`, `batch_size`, `executor`, ... Without `display` nothing is shown; without
    `jobs` the work is done in this process. `strategy` is "unfinished", "missing", "failed", "force" or "cached".
    With `jobs` above 1, worker processes are started, which import the calling script again: call it under
    `if __name__ == "__main__":`. Failed cells are in `report.failures` and as error records; raises UserError, before
    anything is written, for what cannot be run at all.
    """
    alone = given.get("jobs") is None
    named = {"suite": suite} if isinstance(suite, str) else {}
    options = options_from_python({"display": "none"} | given | named)
    strategy = choice(*STRATEGIES)(strategy, Source("strategy", 'strategy="{}"'))
    with environment():  # which planning changes for loaders and workers
        grid = plan_of(options, suite if isinstance(suite, Suite) else None)
        store = Store(options.store)
        chosen = options.strategy if strategy == "unfinished" else strategy
        report = run_plan(grid, store, options, make_reporter(options), strategy=chosen, alone=alone)
    wanted = {cell.id for cell in grid.cells} & store.statuses().keys()
    return Records(store, tuple(store.record(cell_id) for cell_id in sorted(wanted)), report)


def _row(record: Record) -> dict[str, Any]:
    cell, fit = record.cell, record.cell.fit
    return {
        "id": record.id,
        "status": record.status,
        "backbone": fit.backbone.name,
        "method": fit.method.name,
        "dataset": cell.dataset.name,
        "classes": cell.classes,
        "task": cell.task,
        "shots": fit.shots if fit.method.trains else 0,
        "seed": fit.seed,
        "norm": cell.threat.norm,
        "eps": cell.threat.eps,
        "eps_255": cell.threat.eps_255,
        "knowledge": cell.threat.knowledge,
        "attack": cell.attack.label,
        **{name: record.metrics.get(name) for name in ("n", "clean_accuracy", "robust_accuracy")},
        "suspect": "; ".join(record.suspect),
        **{name: record.timing.get(name) for name in ("seconds", "forwards", "backwards")},
        "error": (record.error or {}).get("message"),
    }
