"""A plan crosses a suite, shares fits, and says why a cell is impossible."""

import shlex
from dataclasses import replace
from itertools import groupby
from pathlib import Path

import pytest
from fakes import REAL

from apd_bench.core.errors import UsageError
from apd_bench.core.options import RunOptions
from apd_bench.core.specs import parse_call
from apd_bench.leaderboard.command import crossings
from apd_bench.records.record import Record
from apd_bench.runner.command import command_for, differences
from apd_bench.runner.estimate import cost_of, passes_of
from apd_bench.runner.plan import plan, why_impossible
from apd_bench.runner.queue import WorkQueue
from apd_bench.runner.report import choose
from apd_bench.runner.selection import resolve
from apd_bench.runner.shards import SHARD, shards_of
from apd_bench.suites import load_suite

METHODS = {"methods": ("apd", "advtp"), "reference": ("zero_shot",)}
SUITE = REAL.with_options(**METHODS, datasets=("fashion", "food"), attacks=("pgd", "autoattack"), seeds=(1, 2))
OWN = {"recipe": {"training": {"epochs": 3}}, "recipes": {"advtp": {"training": {"lr": 0.25}}}}


def planned(suite=SUITE, **changes):
    return list(plan(resolve(suite.with_options(**changes))).cells)


def test_the_grid_is_crossed_and_fits_are_shared_where_nothing_in_them_differs():
    cells = planned()
    assert len(cells) == 2 * 2 * (2 * 2 + 1)
    assert len({cell.id for cell in cells}) == len(cells)
    cells = planned(eps=(0.0, 1 / 255, 4 / 255), methods=("advtp",), reference=(), seeds=(1,), datasets=("food",))
    clean = [cell for cell in cells if cell.threat.eps == 0]
    assert {cell.fit.train_eps for cell in clean} == {1 / 255}
    asked = {"eps": (1 / 255, 4 / 255), "methods": ("advtp",), "reference": (), "seeds": (1,), "datasets": ("food",)}
    apart, shared = planned(**asked), planned(**asked, train_eps=1 / 255)
    assert len({cell.fit.id for cell in apart}) == 2
    assert len({cell.fit.id for cell in shared}) == 1
    assert {cell.fit.train_eps for cell in apart} == {1 / 255, 4 / 255}


def test_an_l2_budget_is_no_training_budget_and_who_never_attacks_has_none():
    with pytest.raises(UsageError, match=r"trains against a Linf attack.* --set train_eps=2/255"):
        planned(norm="L2", eps=(0.5,))
    assert {cell.fit.train_eps for cell in planned(norm="L2", eps=(0.5,), train_eps=2 / 255)} <= {None, 2 / 255}
    cells = planned(eps=(1 / 255, 4 / 255), methods=(), seeds=(1,), datasets=("food",))
    assert {cell.fit.train_eps for cell in cells} == {None}
    assert len({cell.fit.id for cell in cells}) == 1


def test_base_to_new_tests_on_both_halves_and_cross_dataset_everywhere():
    cells = planned(task="base_to_new", methods=("advtp",), datasets=("food",), seeds=(1,), attacks=("pgd",))
    trained = [cell for cell in cells if cell.fit.method.trains]
    assert {(cell.fit.classes, cell.classes) for cell in trained} == {("base", "base"), ("base", "new")}
    assert {cell.fit.classes for cell in cells if not cell.fit.method.trains} == {"all"}
    cells = planned(task="cross_dataset", train_dataset="animals", methods=("advtp",), reference=(), seeds=(1,))
    assert {cell.fit.dataset.name for cell in cells} == {"animals"}
    assert {cell.dataset.name for cell in cells} == {"fashion", "food"}
    assert len({cell.fit.id for cell in cells}) == 1
    with pytest.raises(UsageError, match="needs a training set"):
        planned(task="cross_dataset")


def test_the_source_of_a_transfer_is_the_fit_that_the_same_suite_trains_for_that_method():
    own = OWN | {"train_eps": 1 / 255}
    white = {cell.fit.id for cell in planned(methods=("advtp",), reference=(), **own)}
    transfer = {"knowledge": "transfer", "transfer_source": "apt", **own}
    cells = planned(methods=("apd",), **transfer)
    assert {cell.source.id for cell in cells} == white
    assert {cell.threat.source for cell in cells} == {"advtp"}
    zero_shot = [cell for cell in cells if not cell.fit.method.trains]
    assert len(zero_shot) == 2 * 2 * 2  # examples of two seeds are two numbers, even against one model
    assert {cell.id for cell in cells}.isdisjoint(cell.id for cell in planned(methods=("apd",), **own))
    other = planned(methods=("apd",), **(transfer | {"recipes": {}}))
    assert {cell.id for cell in cells}.isdisjoint(cell.id for cell in other)
    grid = plan(resolve(SUITE.with_options(methods=("apd",), reference=(), **transfer)))
    assert white < set(grid.fits)
    record = Record(id=cells[0].id, cell=cells[0], status="cancelled")
    assert Record.from_json(record.to_json()).cell.id == cells[0].id


def test_impossible_cells_say_why_and_the_others_are_planned():
    cell = next(cell for cell in planned() if cell.fit.method.name == "apd")
    poor = replace(cell, fit=replace(cell.fit, backbone=replace(cell.fit.backbone, offers=("text_tokens",))))
    reason = why_impossible(poor)
    assert reason is not None and "visual_tokens" in reason and "tiny-clean does not offer" in reason
    assert why_impossible(cell) is None
    cell = next(cell for cell in planned() if cell.fit.method.name == "apd")
    empty = replace(cell.fit.dataset, counts={"train": 0, "test": 5})
    assert "no training images" in str(why_impossible(replace(cell, fit=replace(cell.fit, dataset=empty))))
    with pytest.raises(UsageError, match="leave nothing to learn from"):
        replace(cell.fit, shots=0)
    grid = plan(resolve(SUITE.with_options(backbones=("RN50-quickgelu/openai",))))
    assert {item.cell.fit.method.name for item in grid.impossible} == {"apd"}
    assert {cell.fit.method.name for cell in grid.cells} == {"zero_shot", "advtp"}
    with pytest.raises(UsageError, match="None of the 8 cells can be measured"):
        planned(backbones=("RN50-quickgelu/openai",), methods=("apd",), reference=())


@pytest.mark.parametrize(
    ("strategy", "expected"),
    [("unfinished", "ecn"), ("missing", "n"), ("failed", "ec"), ("force", "secn"), ("cached", "")],
)
def test_the_strategy_chooses_by_status(strategy, expected):
    cells = planned()[:4]
    states = dict(zip((cell.id for cell in cells), ("success", "error", "cancelled"), strict=False))
    letters = dict(zip((cell.id for cell in cells), "secn", strict=True))
    assert "".join(letters[cell.id] for cell in choose(cells, states, strategy)) == expected


def worked_on(queue):
    order = []
    while task := queue.next(0):
        order.append(task)
        if task.kind == "fit":
            queue.fit_done(task.fit)
    return order


def runs(names):
    return [name for name, _ in groupby(names)]


def test_what_is_quick_comes_first_and_then_what_takes_long_the_longest_first():
    cells = planned(backbones=("tiny-clean", "tiny-robust"))
    fits = {cell.fit.id: cell.fit for cell in cells}
    order = worked_on(WorkQueue(cells, fits.values()))
    assert len(order) == len(fits) + len(cells)
    assert runs(task.fit.backbone.name for task in order) == ["tiny-clean", "tiny-robust"]
    half = [task for task in order if task.fit.backbone.name == "tiny-clean"]
    kinds = ["fit" if task.cell is None else task.cell.attack.name for task in half]
    assert kinds == ["fit", "pgd"] * 10 + ["autoattack"] * 10  # a method has a number as soon as it is trained
    short, long = half[:20], half[20:]
    assert not short[0].fit.method.trains  # numbers from the first second on
    sets = [runs(task.fit.dataset.name for task in part) for part in (short, long)]
    assert sorted(sets[0]) == ["fashion", "food"] and sets[1] == sets[0][::-1]  # each stays loaded
    assert [cost_of(task.cell) for task in long] == sorted((cost_of(task.cell) for task in long), reverse=True)
    assert cost_of(long[0].cell) > cost_of(long[-1].cell)


def test_a_fit_that_several_sets_wait_for_comes_first_and_a_task_alone_waits_for_the_others():
    cells = planned(task="cross_dataset", train_dataset="animals", methods=("advtp",), reference=(), seeds=(1,))
    order = worked_on(WorkQueue(cells, [cells[0].fit]))
    assert [task.kind for task in order] == ["fit"] + ["cell"] * 4
    assert len(runs(task.cell.dataset.name for task in order if task.cell is not None)) == 3  # one stays loaded
    cells = planned()
    queue = WorkQueue(cells, [])
    task = queue.next(0)
    assert task is not None
    queue.again(task, alone=True)
    assert queue.next(1) is None
    assert queue.next(0) is task


def test_cost_grows_with_steps_samples_and_epochs():
    cell = planned()[0]
    longer = replace(cell, attack=replace(cell.attack, options={"steps": 80}))
    assert passes_of(replace(cell, limit=10))[0] * 2 == passes_of(replace(cell, limit=20))[0]
    assert cost_of(longer) > 1.9 * cost_of(cell)
    fit = next(cell.fit for cell in planned() if cell.fit.method.trains)
    twice = replace(fit, method=replace(fit.method, training={**fit.method.training, "epochs": 2}))
    once = replace(fit, method=replace(fit.method, training={**fit.method.training, "epochs": 1}))
    assert passes_of(twice)[0] == 2 * passes_of(once)[0]
    assert passes_of(replace(cell, threat=replace(cell.threat, eps=0.0), limit=9)) == (9.0, 0.0)


@pytest.mark.parametrize("changes", [
    {},
    {"eps": (0.0, 1 / 255, 4 / 255)},
    {"eps": (0.0, 1 / 255, 4 / 255), "train_eps": 1 / 255, "shots": (1, 4)},
    {"norm": "L2", "eps": (0.5, 1.0), "train_eps": 2 / 255},
    {"eps": (0.0157,), "limit": 11, "seeds": (5,), "shots": (2,)},
    {"task": "base_to_new", "precision": "bf16", "resize": "squash"},
    {"task": "cross_dataset", "train_dataset": "animals"},
    {"train_eps": 1 / 255, "attacks": ("pgd(steps=3, loss='margin')",)},
    {"recipe": {"training": {"epochs": 3, "lr": 0.5}}, "recipes": {"apd": {"objective": {"temperature": 2.0}}}},
    {"knowledge": "transfer", "transfer_source": "advtp", "train_eps": 1 / 255, **OWN},
])  # fmt: skip
def test_the_commands_of_cells_plan_exactly_these(changes):
    cells = planned(**changes)
    assert [differences(cell) for cell in cells] == [[]] * len(cells)
    made = [plan(resolve(load_suite("blank"), RunOptions(**crossing))).cells for crossing in crossings(cells)]
    assert sorted(cell.id for part in made for cell in part) == sorted(cell.id for cell in cells)


def test_the_command_can_be_pasted_into_a_shell(tmp_path):
    cell = planned(attacks=("pgd(loss='margin', steps=3)",))[0]
    words = shlex.split(command_for(cell, Path("my results")))
    assert parse_call(words[words.index("--attacks") + 1])[1] == {"loss": "margin", "steps": 3}
    assert words[words.index("--results") + 1] == "my results"


@pytest.mark.parametrize(
    ("samples", "size"), [(9, 3), (9, 4), (10, 3), (9, 9), (2000, 500), (2000, 499), (2000, 3000), (749, 500)]
)
def test_the_command_of_a_cell_measures_it_in_the_same_shards(samples, size):
    cell = replace(planned()[0], limit=None)
    cell = replace(cell, dataset=replace(cell.dataset, counts={cell.split: samples}))
    parts = shards_of(cell, size)
    words = shlex.split(command_for(cell, Path("r"), {"batch_size": 7} | ({"shards": len(parts)} if parts[1:] else {})))
    again = int(words[words.index("--shard") + 1]) if "--shard" in words else SHARD
    assert shards_of(cell, again) == parts and words[words.index("--batch-size") + 1] == "7"


def test_a_cell_of_another_version_says_what_differs():
    cell = planned()[0]
    assert differences(replace(cell, attack=replace(cell.attack, version=99))) == [
        "the attack of this version is not the one of the record"
    ]
    other = replace(cell.dataset, digest="0" * 64)
    assert "dataset" in differences(replace(cell, dataset=other))[0]
