"""How planning, reading and ranking scale with the number of records, and how fast `--help` answers.

    python tests/runner/benchmark_store.py 1000 20000 100000

Processor seconds and wall seconds of each step; the store is made of copies of plausible records.
"""

from __future__ import annotations

import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import TypeVar

import numpy as np

from apd_bench.records import Outcomes, Record
from apd_bench.runner.plan import Plan, plan
from apd_bench.runner.report import choose
from apd_bench.runner.selection import Selection, resolve
from apd_bench.store import Store
from apd_bench.suites import load_suite

Value = TypeVar("Value")
SAMPLES = 100


def grid(number: int) -> Plan:
    """About `number` cells: all methods on the embedded sets, three seeds, three attacks, ever more budgets."""
    suite = resolve(load_suite("embedded"), Selection(methods=("all",), attacks=("pgd", "cw", "autoattack")))
    suite = suite.with_options(seeds=(1, 2, 3), reference=(), limit=SAMPLES)
    each = len(plan(suite.with_options(eps=(1 / 255,))).cells)
    eps = tuple(step / 255 for step in range(1, number // each + 2))
    cells = plan(suite.with_options(eps=eps))
    return replace(cells, cells=cells.cells[:number])


def fill(store: Store, cells: Plan) -> None:
    """Writes a success for every cell, without waiting for the disk each time."""
    import apd_bench.files as files

    generator = np.random.default_rng(0)
    wait, files.os.fsync = files.os.fsync, lambda handle: None
    try:
        with store.writer():
            for cell in cells.cells:
                broken = generator.random(SAMPLES) < 0.7
                outcomes = Outcomes(
                    sample_id=[f"{cell.dataset.name}/{row:05d}" for row in range(SAMPLES)],
                    label=np.arange(SAMPLES) % 10,
                    clean_prediction=np.arange(SAMPLES) % 10,
                    adversarial_prediction=np.where(broken, 11, np.arange(SAMPLES) % 10),
                    broken=broken,
                    extra={name: generator.random(SAMPLES, dtype=np.float32) for name in ("margin", "norm")},
                )
                metrics = {"n": SAMPLES, "clean_accuracy": 1.0, "robust_accuracy": 1 - float(broken.mean())}
                timing = {"seconds": 3.0, "forwards": 900.0, "backwards": 800.0}
                record = Record(id=cell.id, cell=cell, status="success", metrics=metrics, timing=timing)
                store.put(replace(record, created="2026-01-01T00:00:00+00:00"), outcomes)
    finally:
        files.os.fsync = wait


def timed(name: str, work: Callable[[], Value]) -> Value:
    wall, processor = time.perf_counter(), time.process_time()
    value = work()
    say(f"  {name:<34}{time.process_time() - processor:9.2f} s cpu {time.perf_counter() - wall:9.2f} s wall")
    return value


def say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


def measure(number: int) -> None:
    from apd_bench.leaderboard import collect

    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "results"
        say(f"{number} records")
        cells = timed("cross the suite", lambda: grid(number))
        timed("write (no fsync)", lambda: fill(Store(path), cells))
        timed("what is to do, with the index", lambda: choose(cells.cells, Store(path).statuses(), "unfinished"))
        (path / ".index.json").unlink()
        timed("what is to do, without the index", lambda: choose(cells.cells, Store(path).statuses(), "unfinished"))
        timed("read all records", lambda: sum(1 for _ in Store(path).records()))
        timed("aggregate into tables", lambda: collect([path]))


if __name__ == "__main__":
    help_began = time.perf_counter()
    subprocess.run([sys.executable, "-m", "apd_bench", "--help"], check=True, capture_output=True)
    say(f"--help: {time.perf_counter() - help_began:.2f} s wall")
    for text in sys.argv[1:] or ["1000"]:
        measure(int(text))
