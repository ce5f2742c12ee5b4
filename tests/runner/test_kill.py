"""SIGKILL at random moments, resuming each time: what is left is what an undisturbed run leaves.

APD_BENCH_TEST_KILLS=100 sets the number of kills, on the whole reduced grid; the default keeps the suite short. A run
that comes to its end before its next kill is compared, and another one begins in a new folder.
"""

import csv
import io
import json
import os
import random
import signal
import subprocess
import sys
import time
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest

from apd_bench.leaderboard.boards import write_boards
from apd_bench.records.store import Store

KILLS = int(os.environ.get("APD_BENCH_TEST_KILLS", "0"))
FAKE = """
from fakes import make_plan
from test_driver import go
from apd_bench.records.store import Store
if __name__ == "__main__":
    plan = make_plan(datasets=("a", "b", "c"), seeds=(1, 2))
    raise SystemExit(go(plan, Store({results!r}), jobs={jobs}, shard_size={shard}).exit_code)
"""
LITTLE = (
    "run", "--methods", "advtp", "--datasets", "fashion", "--limit", "6", "--shots", "1", "--jobs", "1",
    "--attacks", "pgd(steps=5) autoattack(members=['apgd-ce', 'square'], iterations=5, queries=200)",
    "--set", "training.epochs=1", "--device", "cpu", "--shard", "3", "-q",
)  # fmt: skip
PASSES = ("forwards", "backwards")  # image passes of the attack
REDUCED = ("run", "--suite", "ci", "--jobs", "2", "--device", "cpu", "--shard", "12", "-q")
REAL, CELLS, SHARE = (REDUCED, 12, 0.5) if KILLS else (LITTLE, 4, 1.0)  # of a whole run, in which kills fall


@dataclass
class Kills:
    """What happened while a run was killed again and again."""

    times: int = 0
    ended: bool = False
    lost: list[str] = field(default_factory=list)
    repeated: list[str] = field(default_factory=list)


def run_to_the_end(command, environment):
    began = time.monotonic()
    subprocess.run(command, env=environment, check=True, capture_output=True)
    return time.monotonic() - began


def finished(store):
    """The successes of a store, byte for byte: one that is measured again differs at least in its times."""
    statuses = Store(store.path).statuses()
    return {cell: store.record_path(cell).read_bytes() for cell, status in statuses.items() if status == "success"}


def torment(command, environment, store, *, kills, longest, chance):
    """Kills the run up to `kills` times at random moments, once in a while with its workers, then lets it end."""
    story = Kills()
    while not story.ended:
        before = finished(store)
        process = subprocess.Popen(
            command, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, start_new_session=True
        )
        try:
            code = process.wait(chance.uniform(0, longest) if story.times < kills else None)
        except subprocess.TimeoutExpired:
            if chance.random() < 0.3:
                os.killpg(process.pid, signal.SIGKILL)
            else:
                process.kill()
            process.wait()
            story.times += 1
        else:
            assert code == 0
            story.ended = True
        after = finished(store)
        story.lost += sorted(before.keys() - after.keys())
        story.repeated += sorted(cell for cell, content in before.items() if after.get(cell) != content)
    return story


def essence(store):
    """All records and outcomes, without times, dates and what the machine was doing."""
    found = {}
    for record in store.records():
        data = json.loads(record.to_json())
        passes = {name: data["timing"][name] for name in PASSES if name in data["timing"]}
        for name in ("timing", "created", "environment", "digest"):
            data.pop(name)
        data["passes"] = passes
        data["fit"].pop("seconds", None)
        by_shard = data["effective"].get("by_shard", {})
        for name in ("checkpoint", "resumed_at"):
            data["effective"].pop(name, None)
            by_shard.pop(name, None)
        if not by_shard:
            data["effective"].pop("by_shard", None)
        found[record.id] = (data, store.outcomes(record.id, record).to_bytes())
    return found


def boards(store, out):
    """The boards without what depends on when, where and how fast: the line that dates them, seconds."""
    found = {}
    for path in write_boards([store.path], out):
        if path.suffix == ".csv":
            rows = list(csv.DictReader(path.read_text().splitlines()))
            found[path.name] = [{key: row[key] for key in row if "seconds" not in key} for row in rows]
        else:
            found[path.name] = list(untimed(path.read_text().splitlines()))
    return found


def untimed(lines):
    """The lines of a Markdown board without its date and without the columns of seconds."""
    timed = 0
    for line in lines:
        if line.startswith("| rank"):
            timed = sum(head.strip() in ("train s", "attack s") for head in line.split("|"))
            assert timed == 2
        if not line.startswith("|"):
            timed = 0
        if not line.startswith("Made by "):
            yield line.rsplit("|", timed + 1)[0] if timed else line


def survive(command, environment, folder, *, kills, share=1.0):
    """Runs that were killed until they ended, each with an undisturbed one whose records it has."""
    calm = Store(folder / "calm")
    longest = share * run_to_the_end(command(calm), environment)
    environment["FAKE_LOG"] = str(folder / "work.log")
    chance, killed = random.Random(7), 0
    while killed < kills:
        store = Store(folder / f"killed-{killed}")
        story = torment(command(store), environment, store, kills=kills - killed, longest=longest, chance=chance)
        killed += story.times
        assert story.lost == [] and story.repeated == []
        assert essence(store) == essence(calm)
        yield store, calm


def apd_bench(store, *words):
    """A verb as a command, with records and boards beside each other."""
    return [sys.executable, "-m", "apd_bench", *words, "--results", str(store.path), "--boards", f"{store.path}-boards"]


@pytest.mark.timeout(6000)
@pytest.mark.parametrize(("jobs", "shard"), [(1, 500), (2, 4)])
def test_a_grid_of_fakes_survives_sigkill_at_any_moment(tmp_path, jobs, shard):
    paths = os.pathsep.join((str(Path(__file__).parent), os.environ.get("PYTHONPATH", "")))
    environment = {**os.environ, "PYTHONPATH": paths, "FAKE_SECONDS": "0.01"}

    def command(store):
        script = tmp_path / f"{store.path.name}.py"
        script.write_text(FAKE.format(results=str(store.path), jobs=jobs, shard=shard))
        return [sys.executable, str(script)]

    for store, calm in survive(command, environment, tmp_path, kills=KILLS or 5):
        assert not list(store.path.rglob("*.tmp")) and not list(store.path.rglob("*.damaged"))
        assert len(essence(calm)) == 24


@pytest.mark.timeout(6000)
def test_the_embedded_suite_survives_sigkill_at_any_moment(tmp_path):
    def command(store):
        return apd_bench(store, *REAL)

    for store, calm in survive(command, dict(os.environ), tmp_path, kills=KILLS or 2, share=SHARE):
        assert boards(store, tmp_path / "boards") == boards(calm, tmp_path / "boards")
        assert len(essence(calm)) == CELLS


HARD = "autoattack(members=['apgd-ce', 'apgd-t', 'square'], iterations=5, queries=400)"


@pytest.mark.timeout(6000)
def test_an_autoattack_that_is_killed_in_its_middle_repeats_no_finished_member_or_batch(tmp_path):
    words = ("run", "--methods", "zero_shot", "--datasets", "fashion", "--limit", "8", "--attacks", HARD,
             "--eps", "1/255", "--batch-size", "2", "--jobs", "1", "--device", "cpu", "-q")  # fmt: skip

    def stage(store):
        """The member under way and how many samples wait for it, from the checkpoint; zeros where there is none."""
        for path in store.path.glob("checkpoints/*/attack-*.npz"):
            with suppress(FileNotFoundError), np.load(io.BytesIO(path.read_bytes())) as saved:
                return int(saved["member"]), len(saved["pending"])
        return 0, 0

    calm, killed = Store(tmp_path / "calm"), Store(tmp_path / "killed")
    run_to_the_end(apd_bench(calm, *words), dict(os.environ))
    with subprocess.Popen(apd_bench(killed, *words)) as process:
        while process.poll() is None and not (stage(killed)[0] == 2 and stage(killed)[1] > 0):
            time.sleep(0.01)
        assert process.poll() is None
        process.kill()  # within Square, after some of its batches
    run_to_the_end(apd_bench(killed, *words), dict(os.environ))
    assert essence(killed) == essence(calm)
    (record,), (whole,) = killed.records(), calm.records()
    assert record.effective["resumed_at"] == 2
    # What was finished counts once, and the clean prediction that the second start repeats counts once too.
    assert [record.timing[name] for name in PASSES] == [whole.timing[name] for name in PASSES]
