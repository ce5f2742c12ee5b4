"""A cell measured in parts is the same record as one measured whole, and finished parts are never repeated."""

from dataclasses import replace

import numpy as np
import pytest
from fakes import SAMPLES, make_plan
from test_driver import Interrupting, ends, go

from apd_bench.records.measured import Measured
from apd_bench.records.outcomes import Outcomes
from apd_bench.records.store import Store
from apd_bench.runner.shards import load_shard, save_shard, shard_rows, shards_of

ONE = {"methods": ("one",), "datasets": ("a",), "attacks": ("pgd",)}  # the grid of one cell


@pytest.fixture
def store(tmp_path):
    return Store(tmp_path / "results")


def part(rows, **facts):
    outcomes = Outcomes(
        sample_id=[f"s{row:02d}" for row in rows], label=np.zeros(len(rows)),
        clean_prediction=np.asarray(rows) % 4 == 0, adversarial_prediction=np.ones(len(rows)),
        broken=np.asarray(rows) % 2 == 0, extra={"distance": np.asarray(rows, dtype=np.float32)},
    )  # fmt: skip
    values = {
        "metrics": {"n": len(rows)},
        "timing": {"seconds": 2.0, "forwards": 10, "peak_memory": float(rows.stop)},
        "diagnostics": {"zero_gradients": 0.5 if rows.start else 0.0, "warnings": [f"w{rows.start}", "same"]},
        "fit": {"digest": "d"},
    }
    return Measured(outcomes=outcomes, **{**values, **facts})


def test_shards_hold_the_rows_of_the_cell_in_even_parts_and_small_cells_stay_whole():
    for samples, number in ((10, 3), (7, 7), (5, 8), (1000, 6)):
        rows = [row for place in range(number) for row in shard_rows((place, number), samples)]
        assert rows == list(range(samples))
    cell = make_plan().cells[0]

    def sized(n):
        return list(shards_of(replace(cell, dataset=replace(cell.dataset, counts={"test": n})), 100))

    assert sized(100) == sized(150) == [None]
    assert sized(151) == [(0, 2), (1, 2)]
    assert len(sized(1001)) == 11
    assert shards_of(replace(cell, limit=5), 4) == [None]


def test_merging_counts_accuracies_anew_and_adds_up_the_cost():
    whole = Measured.merge([part(range(0, 6)), part(range(6, 8))])
    assert whole.outcomes.sample_id.tolist() == [f"s{row:02d}" for row in range(8)]
    assert whole.metrics["n"] == 8
    assert whole.metrics["robust_accuracy"] == 0.5
    assert whole.metrics["clean_accuracy"] == 0.75
    assert whole.metrics["median_distance"] == 3.5
    assert whole.timing == {"seconds": 4.0, "forwards": 20.0, "peak_memory": 8.0}
    assert whole.diagnostics["zero_gradients"] == 0.125
    assert whole.diagnostics["warnings"] == ["w0", "same", "w6"]
    assert whole.suspect == ("flat loss: gradients are exactly zero",)
    assert whole.effective["shards"] == 2


def test_merging_adds_up_events_and_names_what_shards_did_differently():
    facts = [
        {"batch_size": 4, "attacked_again": 3, "data": "new"},
        {"batch_size": 4, "attacked_again": 0, "data": "old", "out_of_memory": 1},
    ]
    first, second = part(range(0, 6)), part(range(6, 8))
    whole = Measured.merge([replace(one, effective=fact) for one, fact in zip((first, second), facts, strict=True)])
    assert whole.effective == {
        "batch_size": 4, "attacked_again": 3, "out_of_memory": 1, "data": "old", "shards": 2,
        "by_shard": {"data": ["new", "old"]},
    }  # fmt: skip


def test_a_kept_shard_is_read_back_and_a_torn_one_is_not(tmp_path):
    assert load_shard(tmp_path, (0, 2)) is None
    save_shard(tmp_path, (0, 2), part(range(3)))
    again = load_shard(tmp_path, (0, 2))
    assert again is not None and again.timing == part(range(3)).timing
    assert again.outcomes.extra["distance"].tolist() == [0, 1, 2]
    assert load_shard(tmp_path, (0, 3)) is None  # of another division
    for path in tmp_path.iterdir():
        content = path.read_bytes()
        for torn in (b"", content[:30], content[:-1] + b"x"):
            path.write_bytes(torn)
            assert load_shard(tmp_path, (0, 2)) is None
        path.write_bytes(content)
    assert load_shard(tmp_path, (0, 2)) is not None


@pytest.mark.parametrize("jobs", [1, 2])
def test_sharded_and_whole_cells_have_the_same_outcomes(tmp_path, log, jobs):
    plan = make_plan(datasets=("a",))
    whole, sharded = Store(tmp_path / "whole"), Store(tmp_path / "sharded")
    go(plan, whole)
    before = len(log())
    report = go(plan, sharded, jobs=jobs, shard_size=4)
    assert len(report.computed) == 4 and len(ends(log()[before:], "cell")) == 4 * 3
    for cell in plan.cells:
        one, two = whole.record(cell.id), sharded.record(cell.id)
        assert one.metrics == two.metrics
        assert one.outcomes == two.outcomes
    assert not list((sharded.path / "checkpoints").glob("*"))


def test_an_interrupted_cell_repeats_no_finished_shard(store, log, monkeypatch):
    plan = make_plan(**ONE)
    monkeypatch.setenv("FAKE_SECONDS", "0.1")
    go(plan, store, reporter=Interrupting(), shard_size=4)
    monkeypatch.setenv("FAKE_SECONDS", "0")
    assert store.statuses().get(plan.cells[0].id) != "success"
    go(plan, Store(store.path), shard_size=4)
    batches = [line for line in log() if line.startswith("batch")]
    assert len(batches) == len(set(batches)) == SAMPLES / 4
    assert store.statuses() == {plan.cells[0].id: "success"}


def test_a_run_killed_between_the_last_shard_and_the_record_only_merges(store, log):
    plan = make_plan(**ONE)
    (cell,) = plan.cells
    go(plan, store, only_fits=True)
    for place in range(3):
        save_shard(store.checkpoint_path(cell.id), (place, 3), part(shard_rows((place, 3), SAMPLES)))
    report = go(plan, store, shard_size=4)
    assert report.computed == [cell.id] and not ends(log(), "cell")
    assert len(store.outcomes(cell.id)) == SAMPLES


def test_shards_of_a_fit_that_is_trained_again_are_dropped(store, log):
    plan = make_plan(**ONE)
    (cell,) = plan.cells
    save_shard(store.checkpoint_path(cell.id), (0, 3), part(shard_rows((0, 3), SAMPLES)))
    go(plan, store, shard_size=4)
    assert len(ends(log(), "cell")) == 3


def test_a_shard_that_fails_is_an_error_of_its_cell(store):
    report = go(make_plan(**ONE | {"attacks": ("pgd:raise", "cw")}), store, shard_size=4)
    assert len(report.failures) == 1 and len(report.computed) == 1
    assert sorted(store.statuses().values()) == ["error", "success"]
