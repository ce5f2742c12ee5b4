"""How planning, reading and ranking scale with the number of records: the index against a walk over the files.

The usual way (parse the log or open the result file of every run, whenever something is to be known) is written out
plainly here. The records are plausible copies; no model is involved and torch is not imported.
"""

import json
import math
import tempfile
from collections.abc import Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from apd_bench.core.options import RunOptions
from apd_bench.leaderboard.boards import collect
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.store import Store
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.report import choose
from apd_bench.runner.selection import resolve
from apd_bench.suites import load_suite
from tests.benchmarks.table import Row, in_turn
from tests.leaderboard.synthetic import outcomes, record

SIZES, QUICK = (1000, 5000, 20000, 100000), (500, 2000)
SAMPLES = 100
DIFFERENT = 500  # outcomes per dataset


def rows(quick: bool, device: str) -> Iterator[Row]:
    """Planning, what is to do, and the tables, at every number of records."""
    return store_rows(QUICK if quick else SIZES)


def store_rows(sizes: Sequence[int]) -> Iterator[Row]:
    """The rows of every size; `growth` is the exponent of the seconds since the last size."""
    last: list[Row] = []
    for number in sizes:
        with tempfile.TemporaryDirectory(prefix="apd-bench-store-") as folder:
            measured = _measure(Path(folder) / "results", number)
        yield from (_with_growth(row, before) for row, before in zip(measured, last or measured, strict=True))
        last = measured


def _measure(path: Path, number: int) -> list[Row]:
    cells = grid(number)
    fill(Store(path), cells)

    def todo() -> object:
        return choose(cells.cells, Store(path).statuses(), "unfinished")

    small = number <= 5000
    crossed = in_turn({"ours": lambda: grid(number)}, 1, warm=False)
    done = in_turn({"usual": lambda: walk(path, cells), "ours": todo}, 3 if small else 1, warm=small)
    tables = in_turn({"limit": lambda: read_files(path), "ours": lambda: collect([path])}, 1, warm=False)
    whats = (f"plan: cross {number:,} cells", f"plan: what is to do among {number:,} records",
             f"aggregate {number:,} records into tables")  # fmt: skip
    facts = {"records": number}
    return [
        Row(part="store", what=what, facts=facts, **seconds)
        for what, seconds in zip(whats, (crossed, done, tables), strict=True)
    ]


def _with_growth(row: Row, before: Row) -> Row:
    if row is before:
        return row
    steps = math.log(row.facts["records"] / before.facts["records"])
    growth = math.log(max(min(row.ours), 1e-6) / max(min(before.ours), 1e-6)) / steps
    return replace(row, facts={**row.facts, "growth": round(growth, 2)})


def walk(path: Path, cells: Plan) -> list[str]:
    """The ids that are to do, found by opening the record of every cell."""
    records = (json.loads(file.read_bytes()) for file in path.glob("cells/*/*.json"))
    done = {record["id"] for record in records if record["status"] == "success"}
    return [cell.id for cell in cells.cells if cell.id not in done]


def read_files(path: Path) -> float:
    """The bare reading that no table can do without: every record and its per-sample outcomes."""
    total = 0.0
    for file in path.glob("cells/*/*.json"):
        record = json.loads(file.read_bytes())
        total += record["metrics"]["robust_accuracy"]
        with np.load(file.parent / record["outcomes"]["file"]) as columns:
            total += float(columns["broken"].mean())
    return total


def grid(number: int) -> Plan:
    """`number` cells: all methods on the embedded sets, three seeds, three attacks, and as many budgets as it takes."""
    suite = resolve(load_suite("embedded"), RunOptions(methods=("all",), attacks=("pgd", "cw", "autoattack")))
    suite = suite.with_options(seeds=(1, 2, 3), reference=(), limit=SAMPLES)
    each = len(plan(suite.with_options(eps=(1 / 255,))).cells)
    budgets = number // each + 2
    cells = plan(suite.with_options(eps=tuple(step / max(255, budgets) for step in range(1, budgets))))
    return replace(cells, cells=cells.cells[:number])


def fill(store: Store, cells: Plan) -> None:
    """Writes a success for every cell, without waiting for the disk each time."""
    generator = np.random.default_rng(0)
    made: dict[tuple[str, int], Outcomes] = {}
    with patch("os.fsync", lambda handle: None), store.writer():
        for number, cell in enumerate(cells.cells):
            key = (cell.dataset.name, number % DIFFERENT)
            if key not in made:
                more = {name: generator.random(SAMPLES, dtype=np.float32) for name in ("margin", "norm")}
                kept = generator.random(SAMPLES) < 0.3
                made[key] = outcomes([True] * SAMPLES, kept, prefix=f"{cell.dataset.name}/", **more)
            robust = 1 - float(made[key].broken.mean())
            metrics = {"n": SAMPLES, "clean_accuracy": 1.0, "robust_accuracy": robust}
            store.put(record(cell, metrics=metrics), made[key])
