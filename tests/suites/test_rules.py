"""Recipes for some fits only, and test images made square otherwise than training images."""

from dataclasses import replace

import pytest
from fakes import REAL
from PIL import Image

from apd_bench.core.errors import UnknownName, UsageError
from apd_bench.records.interning import Parts
from apd_bench.records.record import json_form
from apd_bench.runner.command import differences
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import describe, resolve
from apd_bench.runner.stages import Stages
from apd_bench.runner.tasks import Settings
from apd_bench.suites import load_suite, suite_from

GRID = {"methods": ("advtp",), "datasets": ("fashion", "food"), "attacks": ("pgd",), "shots": (1, 4)}
SUITE = REAL.with_options(**GRID, recipe={"training": {"epochs": 9, "lr": 0.5}})
RULES = (
    {"shots": (4,), "recipe": {"training": {"epochs": 3}}},
    {"datasets": ("fashion",), "recipe": {"training": {"epochs": 2}}},
    {"datasets": ("fashion",), "shots": (4,), "recipe": {"training": {"batch_size": 5}}},
)


def planned(suite=SUITE, **changes):
    return list(plan(resolve(suite.with_options(**changes))).cells)


def trainings(cells, option):
    return {(cell.fit.dataset.name, cell.fit.shots): cell.fit.method.training[option] for cell in cells}


def test_a_rule_holds_for_its_training_sets_and_shots_and_the_last_or_more_special_wins():
    cells = planned(rules=RULES)
    epochs = {("fashion", 1): 2, ("fashion", 4): 2, ("food", 1): 9, ("food", 4): 3}
    assert trainings(cells, "epochs") == epochs
    sizes = trainings(cells, "batch_size")
    assert sizes["fashion", 4] == 5 and sizes["fashion", 1] == sizes["food", 4] != 5
    assert set(trainings(cells, "lr").values()) == {0.5}
    cells = planned(rules=RULES, task="cross_dataset", train_dataset="food", shots=(1,))
    assert {cell.dataset.name for cell in cells} == {"fashion", "food"}
    assert {cell.fit.method.training["epochs"] for cell in cells} == {9}
    cells = planned(rules=RULES, recipes={"advtp": {"training": {"epochs": 7}}})
    assert {cell.fit.method.training["epochs"] for cell in cells} == {7}


def test_the_resize_that_a_fit_has_anyway_changes_no_cell_and_commands_repeat_others():
    assert planned()[0].id == planned(test_resize="crop")[0].id
    assert planned()[0].id == replace(planned()[0], resize=planned()[0].fit.resize).id
    for cell in planned(rules=RULES, resize="squash", test_resize="crop"):
        assert differences(cell) == []


def test_rules_and_resize_survive_the_file_that_a_run_leaves(tmp_path):
    path = tmp_path / "mine.toml"
    path.write_text(
        'test_resize = "squash"\n[[rules]]\ndatasets = ["fashion"]\n[rules.recipe.training]\nepochs = 2\n'
        "[[rules]]\nshots = 4\n[rules.recipe.training]\nepochs = 3\n"
    )
    suite = load_suite(str(path))
    assert [dict(rule) for rule in suite.rules] == [
        {"datasets": ("fashion",), "recipe": {"training": {"epochs": 2}}},
        {"shots": (4,), "recipe": {"training": {"epochs": 3}}},
    ]
    again = suite_from(describe(resolve(SUITE.with_options(rules=suite.rules, test_resize="squash"))))
    assert (again.rules, again.test_resize) == (suite.rules, "squash")


@pytest.mark.parametrize(("rule", "kind", "words"), [
    ({"recipe": {"training": {"epochs": 2}}}, UsageError, "neither datasets nor shots"),
    ({"shots": [1]}, UsageError, "a table with a recipe"),
    ({"shots": ["one"], "recipe": {"training": {}}}, UsageError, "whole numbers"),
    ({"shot": [1], "recipe": {"training": {"epochs": 2}}}, UnknownName, "shots"),
    ("shots", UsageError, "a table with a recipe"),
])  # fmt: skip
def test_a_mistake_in_a_rule_is_named(rule, kind, words):
    with pytest.raises(kind, match=words):
        suite_from({"rules": [rule]})


def test_a_rule_for_a_set_that_does_not_exist_is_named():
    with pytest.raises(UnknownName, match="fashion"):
        planned(rules=({"datasets": ("fashon",), "recipe": {"training": {"epochs": 2}}},))


def test_test_images_have_their_own_resize(tmp_path, monkeypatch):
    monkeypatch.setenv("APD_BENCH_CACHE", "none")
    for split in ("train", "test"):
        for name in ("ants", "bees"):
            (tmp_path / split / name).mkdir(parents=True)
            picture = Image.new("RGB", (60, 20))
            picture.paste((255, 255, 255), (20, 0, 40, 20))  # white in the middle third: all that a crop keeps
            picture.save(tmp_path / split / name / "1.png")
    (squashed,) = planned(datasets=(f"folder:{tmp_path}",), shots=(1,), resize="squash")
    (cropped,) = planned(datasets=(f"folder:{tmp_path}",), shots=(1,), resize="squash", test_resize="crop")
    stages = Stages(Settings(fits=str(tmp_path), checkpoints=str(tmp_path)))
    assert stages.test_set(cropped, 20).test.images().min() > 200
    assert stages.test_set(squashed, 20).test.images().min() < 50
    stages.close()
    assert cropped.fit.id == squashed.fit.id and cropped.id != squashed.id
    assert Parts().cell(json_form(cropped, recorded=True)).id == cropped.id
    assert replace(cropped, resize="squash").id == squashed.id
