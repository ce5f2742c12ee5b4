"""SIGKILL at random moments, resuming each time: what is left is what an undisturbed run leaves.

APD_BENCH_TEST_KILLS=100 sets the number of kills; the default keeps the suite short.
"""

from __future__ import annotations

import csv
import json
import os
import random
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest

from apd_bench.leaderboard import write_boards
from apd_bench.store import Store

KILLS = int(os.environ.get("APD_BENCH_TEST_KILLS", "0"))
JOBS = "2" if KILLS else "1"  # importing torch in workers takes longer than the little grid
FAKE = """
from fakes import make_plan
from test_driver import go
from apd_bench.store import Store
if __name__ == "__main__":
    plan = make_plan(datasets=("a", "b", "c"), seeds=(1, 2))
    raise SystemExit(go(plan, Store({results!r}), jobs={jobs}, shard_size={shard}).exit_code)
"""
REAL = (
    "run", "--methods", "advtp", "--datasets", "fashion", "--limit", "6", "--shots", "1", "--jobs", JOBS,
    "--attacks", "pgd(steps=5) autoattack(members=['apgd-ce', 'square'], iterations=5, queries=200)",
    "--set", "training.epochs=1", "--device", "cpu", "--shard", "3", "-q",
)  # fmt: skip


@dataclass
class Kills:
    """What happened while a run was killed again and again."""

    times: int = 0
    repeated: list[str] = field(default_factory=list)
    lost: list[str] = field(default_factory=list)
    done_at_kill: list[int] = field(default_factory=list)


def run_to_the_end(command: list[str], environment: dict[str, str]) -> float:
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def torment(
    command: list[str],
    environment: dict[str, str],
    store: Store,
    *,
    kills: int,
    longest: float,
    computed: Callable[[], list[str]],
) -> Kills:
    """Kills the run `kills` times at random moments, once in a while with its workers, then lets it end."""
    chance, story = random.Random(7), Kills()
    while story.times < kills:
        before = {cell for cell, status in Store(store.path).statuses().items() if status == "success"}
        began = len(computed())
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(chance.uniform(0, longest))
        except subprocess.TimeoutExpired:
            if chance.random() < 0.3:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            story.times += 1
        else:
            assert code == 0
            story.done_at_kill.append(len(Store(store.path).statuses()))
            break  # it came to its end before the next kill
        after = {cell for cell, status in Store(store.path).statuses().items() if status == "success"}
        story.lost += sorted(before - after)
        story.repeated += [cell for cell in computed()[began:] if cell in before]
        story.done_at_kill.append(len(after))
    run_to_the_end(command, environment)
    return story


def essence(store: Store) -> dict[str, Any]:
    """All records and outcomes, without times, dates and what the machine was doing."""
    found = {}
    for record in store.records():
        data = json.loads(record.to_json())
        for name in ("timing", "created", "environment"):
            data.pop(name)
        data["fit"].pop("seconds", None)
        data["effective"].pop("checkpoint", None)
        found[record.id] = (data, store.outcomes(record.id, record).to_bytes())
    return found


def boards(store: Store, out: Path) -> dict[str, Any]:
    """The boards without what depends on when, where and how fast: the line that dates them, seconds."""
    found: dict[str, Any] = {}
    for path in write_boards([store.path], out):
        if path.suffix == ".csv":
            rows = list(csv.DictReader(path.read_text().splitlines()))
            found[path.name] = [{key: row[key] for key in row if "seconds" not in key} for row in rows]
        else:
            found[path.name] = [line for line in path.read_text().splitlines() if not line.startswith("Made by ")]
    return found


@pytest.mark.parametrize(("jobs", "shard"), [(1, 500), (2, 4)])
def test_a_grid_of_fakes_survives_sigkill_at_any_moment(tmp_path: Path, jobs: int, shard: int) -> None:
    environment = {**os.environ, "PYTHONPATH": str(Path(__file__).parent), "FAKE_SECONDS": "0.01"}
    commands = []
    for name in ("calm", "killed"):
        script = tmp_path / f"{name}.py"
        script.write_text(FAKE.format(results=str(tmp_path / name), jobs=jobs, shard=shard))
        commands.append([sys.executable, str(script)])
    seconds = run_to_the_end(commands[0], environment)
    log = tmp_path / "work.log"
    environment["FAKE_LOG"] = str(log)

    def computed() -> list[str]:
        lines = log.read_text().splitlines() if log.exists() else []
        return [line.split()[1].partition(".")[0] for line in lines if line.startswith("start-cell")]

    calm, killed = Store(tmp_path / "calm"), Store(tmp_path / "killed")
    story = torment(commands[1], environment, killed, kills=KILLS or 5, longest=seconds, computed=computed)
    assert story.lost == [] and story.repeated == []
    assert len(essence(calm)) == 24
    assert essence(killed) == essence(calm)
    assert not list(killed.path.rglob("*.tmp")) and not list(killed.path.rglob("*.damaged"))


@pytest.mark.timeout(3000)
def test_the_embedded_suite_survives_sigkill_at_any_moment(tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("APD_BENCH_")}
    base = [sys.executable, "-m", "apd_bench", *REAL]
    calm, killed = Store(tmp_path / "calm"), Store(tmp_path / "killed")
    places = [["--results", str(store.path), "--boards", f"{store.path}-boards"] for store in (calm, killed)]
    seconds = run_to_the_end([*base, *places[0]], environment)
    story = torment([*base, *places[1]], environment, killed, kills=KILLS or 2, longest=seconds, computed=lambda: [])
    assert story.lost == []
    assert len(essence(calm)) == 4
    assert essence(killed) == essence(calm)
    written = boards(killed, tmp_path / "boards")
    assert written == boards(calm, tmp_path / "boards")
