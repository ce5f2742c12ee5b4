"""Suites against stored verdicts of AutoAttack: on the samples of the record, with every difference counted."""

import argparse
import dataclasses
import json
import shutil

import numpy as np
import pytest

from apd_bench.bench.stored import against_records, markdown
from apd_bench.cli import bench
from apd_bench.errors import MissingPrerequisite, UserError
from apd_bench.records import Outcomes, Record
from apd_bench.registry import DATASETS
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import Selection, resolve
from apd_bench.runner.stages import Stages
from apd_bench.runner.tasks import CellDone, FitDone, Settings, Task
from apd_bench.specs import Suite
from apd_bench.store import Store


@pytest.fixture(scope="module")
def store(tmp_path_factory):
    """A store with one zero-shot cell whose "AutoAttack" broke the first half of the samples and nothing else."""
    folder = tmp_path_factory.mktemp("store")
    suite = Suite(name="s", backbones=("tiny-clean",), methods=("zero_shot",), datasets=("animals",),
                  attacks=("pgd(steps=1)", "autoattack"), eps=(3 / 255,), seeds=(1,), shots=(1,), limit=8)  # fmt: skip
    cells = {cell.attack.name: cell for cell in plan(resolve(suite, Selection())).cells}
    weak, cell = cells["pgd"], cells["autoattack"]
    stages = Stages(Settings(fits=str(folder / "fits"), checkpoints=str(folder / "c"), threads=1))
    made = stages.run(Task(fit=cell.fit), lambda progress: None)
    assert isinstance(made, FitDone)
    with Store(folder).writer() as store:
        store.put_fit(cell.fit.id, made.files)
        done = stages.run(Task(fit=weak.fit, cell=weak, files={cell.fit.id: made.files}), lambda progress: None)
        assert isinstance(done, CellDone)
        seen = done.outcomes
        order = np.arange(8)[::-1]  # a record may keep its samples in another order
        names = ("sample_id", "label", "clean_prediction", "adversarial_prediction")
        broken = np.arange(8) < 4
        columns = {name: getattr(seen, name)[order] for name in names}
        outcomes = Outcomes(**columns, broken=broken[order])
        timing = {"forwards": 800, "backwards": 80}
        store.put(Record(id=cell.id, cell=cell, status="success", metrics={}, timing=timing), outcomes)
    stages.close()
    return folder, np.asarray(seen.clean_prediction == seen.label), broken


def test_every_verdict_is_compared(store):
    folder, correct, broken = store
    none, worst = against_records(Store(folder), ["noise", "worst"])
    for row in (none, worst):
        assert (row.n, row.library_standing, row.library_forwards) == (8, 4, 800)
        assert row.n - row.standing == row.gained - row.missed + 4
        assert row.difference == (row.standing - 4) / 8
    assert none.backwards == 0 < worst.backwards and worst.standing <= none.standing
    assert worst.gained >= int((~correct & ~broken).sum())
    assert "| tiny-clean | 3/255 | zero_shot | 8 | worst |" in markdown([none, worst])


def test_the_interval_holds_the_difference_and_narrows_with_samples(store):
    (row,) = against_records(Store(store[0]), ["noise"])
    few = dataclasses.replace(row, n=100, missed=3, gained=1, standing=42, library_standing=40)
    many = dataclasses.replace(few, n=10000, missed=300, gained=100, standing=4200, library_standing=4000)
    for item in (few, many):
        low, high = item.interval
        assert low < item.difference < high
    assert many.interval == pytest.approx((0.0161, 0.0239), abs=2e-4)  # 0.02 +- 1.96 sqrt((0.04 - 0.02^2) / 10000)
    assert few.interval[1] - few.interval[0] > 5 * (many.interval[1] - many.interval[0])


def test_the_verb_writes_them(store, capsys, tmp_path):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    file = tmp_path / "v.json"
    words = ["attacks", "--records", str(store[0]), "--attacks", "worst(steps=2, targets=1)", "--json", str(file)]
    assert bench.execute(parser.parse_args(words)) == 0
    assert "worst(steps=2, targets=1)" in capsys.readouterr().out
    assert json.loads(file.read_text("utf-8"))["verdicts"][0]["n"] == 8


def compare(folder, *words):
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    return bench.execute(parser.parse_args(["attacks", "--records", str(folder), "--attacks", "noise", *words]))


def test_models_sets_and_budgets_choose_the_cells(store, capsys, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(store[0], folder)
    (record,) = Store(folder).records()
    threat = dataclasses.replace(record.cell.threat, eps=4 / 255)
    cell = dataclasses.replace(record.cell, threat=threat)
    with Store(folder).writer() as copy:
        copy.put(dataclasses.replace(record, id=cell.id, cell=cell), Store(folder).outcomes(record.id))
    assert compare(folder) == 0
    assert "| 3/255 |" in (both := capsys.readouterr().out) and "| 4/255 |" in both
    assert compare(folder, "--eps", "3/255", "--datasets", "animals", "--models", "tiny-clean") == 0
    assert "| 3/255 |" in (one := capsys.readouterr().out) and "| 4/255 |" not in one


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--eps 3/255,8/255", "for --eps 8/255. Available: 3/255. Make some: apd-bench run --attacks autoattack --eps"),
        ("--datasets food", "for --datasets food. Available: animals."),
        ("--models tiny-robust", "Available: tiny-clean. Make some: apd-bench run --attacks autoattack --backbone"),
        ("--datasets animal", "Did you mean 'animals'?"),
        ("--limit 3", "--limit says nothing about stored records"),
        ("--steps 20", "--steps says nothing"),
        ("--batch 8", "--batch says nothing"),
        ("--repeats 3", "--repeats says nothing"),
        ("--quick", "--quick says nothing"),
        ("--attacks none", "--attacks none leaves nothing to compare"),
        ("--attacks ,", "names nothing"),
    ],
)
def test_options_that_choose_no_record_are_refused(store, words, said):
    with pytest.raises(UserError) as caught:
        compare(store[0], *words.split())
    assert said in str(caught.value)


def test_a_choice_without_any_cell_in_common_is_named(store, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(store[0], folder)
    (record,) = Store(folder).records()
    threat, food = dataclasses.replace(record.cell.threat, eps=4 / 255), DATASETS.get("food")
    cell = dataclasses.replace(record.cell, threat=threat, dataset=food)
    with Store(folder).writer() as copy:
        copy.put(dataclasses.replace(record, id=cell.id, cell=cell), Store(folder).outcomes(record.id))
    with pytest.raises(MissingPrerequisite, match="--datasets food --eps 3/255 together"):
        compare(folder, "--datasets", "food", "--eps", "3/255")


def test_a_variable_of_the_environment_is_named_where_it_is_refused(store, monkeypatch):
    monkeypatch.setenv("APD_BENCH_LIMIT", "5")
    with pytest.raises(UserError, match="from APD_BENCH_LIMIT"):
        compare(store[0], "--limit", "5")


def test_cells_without_their_prompts_are_left_out_and_said(store, capsys, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(store[0], folder)
    (record,) = Store(folder).records()
    method = dataclasses.replace(record.cell.fit.method, name="trained")
    cell = dataclasses.replace(record.cell, fit=dataclasses.replace(record.cell.fit, method=method))
    with Store(folder).writer() as copy:
        copy.put(dataclasses.replace(record, id=cell.id, cell=cell), Store(folder).outcomes(record.id))
    parser = argparse.ArgumentParser()
    bench.add_arguments(parser)
    words = parser.parse_args(["attacks", "--records", str(folder), "--attacks", "noise"])
    assert bench.execute(words) == 0
    shown = capsys.readouterr()
    assert (
        "1 of 2 cells are left out: their prompts are not stored, or were trained again since" in shown.err
        and "| 8 | noise |" in shown.out
    )
    shutil.rmtree(folder / "fits")
    with pytest.raises(MissingPrerequisite, match="no cell of standard AutoAttack with its prompts"):
        bench.execute(words)


def test_only_plain_verdicts_of_the_stored_prompts_count_and_each_sample_once(store, tmp_path):
    folder = tmp_path / "copy"
    shutil.copytree(store[0], folder)
    (record,) = Store(folder).records()
    outcomes = Store(folder).outcomes(record.id)
    few = dataclasses.replace(record.cell, limit=4)
    bf16 = dataclasses.replace(record.cell, precision="bf16")
    seed = dataclasses.replace(record.cell, attack_seed=5)
    with Store(folder).writer() as copy:
        copy.put(dataclasses.replace(record, id=few.id, cell=few, metrics={"n": 4}), outcomes)
        copy.put(dataclasses.replace(record, id=record.id, metrics={"n": 8}), outcomes)
        copy.put(dataclasses.replace(record, id=bf16.id, cell=bf16), outcomes)
        copy.put(dataclasses.replace(record, id=seed.id, cell=seed, fit={"digest": "of other prompts"}), outcomes)
    told = []
    (row,) = against_records(Store(folder), ["noise"], tell=told.append)
    assert (row.n, row.library_forwards) == (8, 800)
    assert told == ["1 of 2 cells are left out: their prompts are not stored, or were trained again since"]


def test_no_records_is_explained(tmp_path):
    with pytest.raises(MissingPrerequisite, match="no cell of standard AutoAttack"):
        against_records(Store(tmp_path), ["worst"])
