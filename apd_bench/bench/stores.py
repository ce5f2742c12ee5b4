"""How planning, reading and ranking scale with the number of records: the index against a walk over the files.

The usual way (parse the log or open the result file of every run, whenever something is to be known) is written out
plainly here. The records are plausible copies; no model is involved and torch is not imported.
"""

from __future__ import annotations

import json
import math
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from unittest.mock import patch

import numpy as np

from apd_bench.bench.rows import Row, in_turn
from apd_bench.records import Outcomes, Record
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.report import choose
from apd_bench.runner.selection import Selection, resolve
from apd_bench.store import Store
from apd_bench.suites import load_suite

SAMPLES = 100
DIFFERENT = 500  # outcomes per dataset
WRITTEN = "2026-01-01T00:00:00+00:00"


def store_rows(sizes: Sequence[int], repeats: int) -> list[Row]:
    """What is to do, and the tables, at every number of records; the growth is the exponent since the last size."""
    rows: list[Row] = []
    for number in sizes:
        with tempfile.TemporaryDirectory(prefix="apd-bench-store-") as folder:
            rows += _measure(Path(folder) / "results", number, repeats)
    return [_with_growth(row, rows) for row in rows]


def _measure(path: Path, number: int, repeats: int) -> list[Row]:
    from apd_bench.leaderboard import collect

    cells = grid(number)
    fill(Store(path), cells)
    small = number <= 5000
    repeats = repeats if small else 1
    todo = in_turn(
        {
            "usual": lambda: walk(path, cells),
            "ours": lambda: choose(cells.cells, Store(path).statuses(), "unfinished"),
        },
        repeats,
        warm=small,
    )
    tables = in_turn(
        {
            "limit": lambda: read_files(path),
            "ours": lambda: collect([path]),
        },
        repeats if number <= 1000 else 1,
        warm=number <= 1000,
    )
    crossed = in_turn({"ours": lambda: grid(number)}, 1, warm=False)
    return [
        Row(part="store", what=f"plan: cross {number:,} cells", ours=crossed["ours"], facts={"records": number}),
        Row(
            part="store", what=f"plan: what is to do among {number:,} records", ours=todo["ours"], usual=todo["usual"],
            facts={"records": number},
        ),
        Row(
            part="store", what=f"aggregate {number:,} records into tables", ours=tables["ours"], limit=tables["limit"],
            facts={"records": number},
        ),
    ]  # fmt: skip


def _with_growth(row: Row, rows: Sequence[Row]) -> Row:
    """The row with its exponent: seconds grow as records to that power since the next smaller size."""
    kind = row.what.split(":")[-1].split()[0]
    smaller = [
        item
        for item in rows
        if item.what.split(":")[-1].split()[0] == kind and item.facts["records"] < row.facts["records"]
    ]
    if not smaller:
        return row
    last = max(smaller, key=lambda item: int(item.facts["records"]))
    steps = math.log(row.facts["records"] / last.facts["records"])
    growth = math.log(max(min(row.ours), 1e-6) / max(min(last.ours), 1e-6)) / steps
    return replace(row, facts={**row.facts, "growth": round(growth, 2)})


def walk(path: Path, cells: Plan) -> list[str]:
    """The ids that are to do, found by opening the record of every cell."""
    done = set()
    for file in path.glob("cells/*/*.json"):
        record = json.loads(file.read_bytes())
        if record["status"] == "success":
            done.add(record["id"])
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
    suite = resolve(load_suite("embedded"), Selection(methods=("all",), attacks=("pgd", "cw", "autoattack")))
    suite = suite.with_options(seeds=(1, 2, 3), reference=(), limit=SAMPLES)
    each = len(plan(suite.with_options(eps=(1 / 255,))).cells)
    budgets = number // each + 2
    cells = plan(suite.with_options(eps=tuple(step / max(255, budgets) for step in range(1, budgets))))
    return replace(cells, cells=cells.cells[:number])


def fill(store: Store, cells: Plan) -> None:
    """Writes a success for every cell, without waiting for the disk each time.

    The outcomes are drawn from so many per dataset.
    """
    generator = np.random.default_rng(0)
    made: dict[tuple[str, int], _Packed] = {}
    with patch("os.fsync", lambda handle: None), store.writer():
        for number, cell in enumerate(cells.cells):
            key = (cell.dataset.name, number % DIFFERENT)
            if key not in made:
                made[key] = _outcomes(cell.dataset.name, generator)
            outcomes = made[key]
            metrics = {"n": SAMPLES, "clean_accuracy": 1.0, "robust_accuracy": 1 - float(outcomes.broken.mean())}
            timing = {"seconds": 3.0, "forwards": 900.0, "backwards": 800.0}
            record = Record(id=cell.id, cell=cell, status="success", metrics=metrics, timing=timing, created=WRITTEN)
            store.put(record, outcomes)


@dataclass(frozen=True, kw_only=True)
class _Packed(Outcomes):
    """Outcomes that are packed once and written many times."""

    content: bytes = b""

    def to_bytes(self) -> bytes:
        return self.content


def _outcomes(dataset: str, generator: np.random.Generator) -> _Packed:
    label = np.arange(SAMPLES) % 10
    broken = generator.random(SAMPLES) < 0.7
    outcomes = Outcomes(
        sample_id=np.asarray([f"{dataset}/{row:05d}" for row in range(SAMPLES)]),
        label=label,
        clean_prediction=label,
        adversarial_prediction=np.where(broken, 11, label),
        broken=broken,
        extra={name: generator.random(SAMPLES, dtype=np.float32) for name in ("margin", "norm")},
    )
    return _Packed(**vars(outcomes), content=outcomes.to_bytes())
