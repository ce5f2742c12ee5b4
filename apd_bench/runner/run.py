"""The runner for Python: `run(suite, ...)` and `load_records(path)`. Importing it does not import torch."""

from __future__ import annotations

import html
import inspect
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, overload

from apd_bench.core.errors import MissingPrerequisite
from apd_bench.core.options import Spelling, choice, options_from_python
from apd_bench.core.options import table as options_table
from apd_bench.core.specs import Suite
from apd_bench.leaderboard.boards import collect, write_boards
from apd_bench.leaderboard.columns import table_columns
from apd_bench.leaderboard.csv_file import summary_rows
from apd_bench.leaderboard.model import Table
from apd_bench.leaderboard.wording import heading
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.record import Record
from apd_bench.records.store import Store
from apd_bench.runner.executor import environment
from apd_bench.runner.report import STRATEGIES, RunReport
from apd_bench.runner.session import in_notebook, make_reporter, plan_of, run_plan

if TYPE_CHECKING:
    import pandas as pd
    from torch import nn

_SHOWN, _MOST = 4, 5000  # tables that a notebook shows, and records that it reads for them


@dataclass(frozen=True, repr=False)
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

    def classifier(self, record: Record, device: str | None = None) -> nn.Module:
        """The model of a record, as `apd_bench.load_classifier`."""
        from apd_bench.runner.classifiers import load_classifier

        return load_classifier(record, results=self.store.path, device=device)

    def to_pandas(self) -> pd.DataFrame:
        """One row a record: the choices that make the cell, status, metrics, suspect marks, seconds and passes."""
        import pandas as pd

        return pd.DataFrame([_row(record) for record in self.items])

    def board(self) -> pd.DataFrame:
        """The leaderboard: one row a method and table, accuracies in percent, each with `low` and `high` (95 %)."""
        import pandas as pd

        header, rows = summary_rows(self._tables())
        return pd.DataFrame(rows, columns=pd.Index(header))

    def _tables(self) -> Sequence[Table]:
        return collect([self.store.path], {record.id for record in self.items}).tables

    def __repr__(self) -> str:
        states = Counter(record.status for record in self.items)
        said = ", ".join(f"{number} {status}" for status, number in sorted(states.items())) or "none"
        methods = len({record.cell.fit.method.name for record in self.items})
        datasets = len({record.cell.dataset.name for record in self.items})
        return f"Records of '{self.store.path}': {said}; methods: {methods}, datasets: {datasets}"

    def _repr_html_(self) -> str:
        import pandas as pd

        parts = [f"<p>{html.escape(repr(self))}</p>"]
        for table in self._tables()[:_SHOWN] if len(self) <= _MOST else ():
            columns = [column for column in table_columns(table.attacks, "terminal") if column.narrow]
            cells = [[column.shown(table, row, "terminal") for column in columns] for row in table.rows]
            frame = pd.DataFrame(cells, columns=pd.Index([column.heading for column in columns]))
            parts += [f"<p>{html.escape(heading(table))}</p>", frame.to_html(index=False)]
        return "".join(parts)


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
    `results`, `data`, `jobs`, `device`, `batch_size`, `executor`, ... Without `display` nothing is shown but in a
    notebook; without `boards` none are written; without `jobs` the work is done in this process; `dry_run` only counts
    what there is to do. `strategy` is "unfinished", "missing", "failed", "force" or "cached".
    With `jobs` above 1, worker processes are started, which import the calling script again: call it under
    `if __name__ == "__main__":`. Failed cells are in `report.failures` and as error records; raises UserError, before
    anything is written, for what cannot be run at all.
    """
    alone = given.get("jobs") is None
    shown = "auto" if in_notebook() else "none"
    named = {"suite": suite} if isinstance(suite, str) else {}
    options = options_from_python({"display": shown} | given | named)
    strategy = choice(*STRATEGIES)(strategy, Spelling("strategy", 'strategy="{}"'))
    with environment():  # which planning changes for loaders and workers
        grid = plan_of(options, suite if isinstance(suite, Suite) else None)
        store = Store(options.store)
        chosen = options.strategy if strategy == "unfinished" else strategy
        if options.dry_run:
            report = RunReport.of(grid.cells, store.statuses() if store.exists() else {}, chosen)
        else:
            report = run_plan(grid, store, options, make_reporter(options), strategy=chosen, alone=alone)
    stored = store.statuses() if store.exists() else {}
    wanted = {cell.id for cell in grid.cells} & stored.keys()
    if given.get("boards") is not None and not options.dry_run and "success" in stored.values():
        write_boards([store.path], options.boards)
    return Records(store, tuple(store.record(cell_id) for cell_id in sorted(wanted)), report)


def _signature() -> inspect.Signature:
    """The arguments of `run` with all options by name, for completion and help."""
    suite, strategy, _ = inspect.signature(run).parameters.values()
    names = [name for name in options_table() if name != "suite"]
    more = [inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=None) for name in names]
    return inspect.Signature([suite, strategy, *more], return_annotation=Records)


run.__signature__ = _signature()  # type: ignore[attr-defined]


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
