"""The tries of a search, and the table of those that are finished: it alone is enough to go on from.

One line for each method, try, set and seed; one try of all methods is made after the other, so that any end leaves
equal tries for all.
"""

import csv
import io
import json
import math
from collections.abc import Iterable, Mapping
from dataclasses import asdict, dataclass, fields, replace
from pathlib import Path
from typing import Any, get_type_hints

from apd_bench.core.errors import EXIT_DONE, EXIT_INTERRUPTED, CorruptFile
from apd_bench.core.files import atomic_write, read_text
from apd_bench.core.options import RunOptions
from apd_bench.core.specs import Cell, format_eps
from apd_bench.records.record import Record
from apd_bench.records.store import Store
from apd_bench.runner.reporter import Reporter
from apd_bench.runner.session import run_plan
from apd_bench.tuning.search import Search
from apd_bench.tuning.space import space_of

TABLE = "trials.csv"


@dataclass(frozen=True, kw_only=True)
class Trial:
    """One try of a method on one set.

    `configuration` is what it sets in the recipe (JSON), `fit` the id of the fit, `prompts` the digest of what was
    learned, `cell` the id of the record, `clean` and `robust` accuracies on the `n` images of `split`, `seconds` those
    of training and measuring.
    """

    trial: int
    method: str
    backbone: str
    dataset: str
    shots: int
    seed: int
    attack: str
    eps: str
    split: str
    n: int
    clean: float
    robust: float
    seconds: float
    fit: str
    prompts: str
    cell: str
    configuration: str

    @classmethod
    def of(cls, number: int, configuration: Mapping[str, Any], record: Record) -> "Trial":
        """The line of a successful record."""
        cell: Cell = record.cell
        metrics, fit = record.metrics, record.fit
        return cls(
            trial=number,
            method=cell.fit.method.name,
            backbone=cell.fit.backbone.name,
            dataset=cell.dataset.name,
            shots=cell.fit.shots,
            seed=cell.fit.seed,
            attack=cell.attack.label,
            eps=format_eps(cell.threat.eps, cell.threat.norm),
            split=cell.split,
            n=int(metrics["n"]),
            clean=round(float(metrics["clean_accuracy"]), 6),
            robust=round(float(metrics["robust_accuracy"]), 6),
            seconds=round(float(record.timing.get("seconds", 0)) + float(fit.get("seconds", 0)), 1),
            fit=cell.fit.id,
            prompts=str(fit.get("digest", ""))[:16],
            cell=cell.id,
            configuration=json.dumps(configuration),
        )

    @property
    def place(self) -> tuple[str, int]:
        """The set and the seed."""
        return self.dataset, self.seed


_TYPES = get_type_hints(Trial)
_COLUMNS = [item.name for item in fields(Trial)]


def read_trials(path: Path) -> dict[str, Trial]:
    """The lines of the table at `path` by the id of their cell; none where there is no table.

    Raises CorruptFile, with the number of the line, for one that cannot be read or was scored on test images.
    """
    if not path.is_file():
        return {}
    reader = csv.DictReader(io.StringIO(read_text(path)))
    if reader.fieldnames != _COLUMNS:
        raise CorruptFile(f"{path} is no table of tries: its columns are {', '.join(reader.fieldnames or ())}.")
    found: dict[str, Trial] = {}
    for row in reader:
        try:
            trial = Trial(**{name: _TYPES[name](row[name]) for name in _COLUMNS})
            shares = (trial.clean, trial.robust)
            if not isinstance(json.loads(trial.configuration), dict):
                raise ValueError("its configuration is no table")
            if trial.split == "test" or not all(math.isfinite(one) and 0 <= one <= 1 for one in shares):
                raise ValueError("it is scored on test images" if trial.split == "test" else "an accuracy is no share")
        except (ValueError, TypeError) as error:
            raise CorruptFile(
                f"{path}: line {reader.line_num} is no try: {error}.", hint="Delete the line, and it is made again."
            ) from error
        found[trial.cell] = trial
    return found


def write_trials(path: Path, trials: Iterable[Trial]) -> None:
    """Replaces the table at `path`, ordered by try, backbone, method, set and seed."""
    stream = io.StringIO()
    writer = csv.DictWriter(stream, _COLUMNS, lineterminator="\n")
    writer.writeheader()
    for trial in sorted(trials, key=lambda one: (one.trial, one.backbone, one.method, *one.place, one.cell)):
        writer.writerow(asdict(trial))
    atomic_write(path, stream.getvalue().encode())


def make_tries(search: Search, store: Store, options: RunOptions, reporter: Reporter) -> tuple[int, list[Trial]]:
    """Makes the tries of `search` that neither the table nor the records in `store` have; adds them to the table.

    Returns the exit code of the worst run, and the lines of all tries of this search that are done.
    """
    path = store.path / TABLE
    done, mine, code = read_trials(path), [], EXIT_DONE
    for number in range(search.trials):
        for grid in search.plans(number):
            left = [cell for cell in grid.cells if cell.id not in done]
            if left and code != EXIT_INTERRUPTED:
                reporter.message(f"try {number + 1} of {search.trials}")
                report = run_plan(replace(grid, cells=tuple(left)), store, options, reporter)
                code = max(code, report.exit_code)
                statuses = store.statuses()
                for cell in left:
                    if statuses.get(cell.id) == "success":
                        configuration = space_of(cell.fit.method.name).configuration(number)
                        done[cell.id] = Trial.of(number, configuration, store.record(cell.id))
                write_trials(path, done.values())
            mine += [done[cell.id] for cell in grid.cells if cell.id in done]
    return code, mine
