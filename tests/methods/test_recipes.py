"""Recipes: every number has its source, overrides change what they name and nothing else, mistakes are explained."""

import re

import pytest

from apd_bench.core.errors import UsageError
from apd_bench.core.identity import counted
from apd_bench.core.package_data import baselines_path
from apd_bench.core.registry import METHODS
from apd_bench.methods.catalog import BUILTIN, builtin
from apd_bench.methods.recipes import OVERRIDDEN, load_recipe, recipe_of, suite_recipe, tables_of
from apd_bench.methods.tables import INNER_ATTACK, TRAINING, numbers

ENTRIES = list(builtin())
SOURCE = re.compile(r"^(inferred|paper|code|secondary)\b")


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_every_stated_number_has_a_source(entry):
    table, sources = tables_of(entry)
    stated = set(numbers(table))
    assert stated == set(sources)
    for name, source in sources.items():
        assert SOURCE.match(source), f"{name}: {source}"


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_a_recipe_leaves_no_field_of_the_loop_to_a_default(entry):
    table, _ = tables_of(entry)
    if "objective" not in table:
        assert set(table) == {"learner"}
        return
    assert set(table["training"]) | {"clip_norm"} == set(TRAINING)
    if "inner_attack" in table:
        assert set(table["inner_attack"]) == set(INNER_ATTACK)


@pytest.mark.parametrize("name", BUILTIN)
def test_every_method_has_a_card(name):
    card = baselines_path(name, "CARD.md").read_text(encoding="utf-8")
    assert card.startswith("# ")
    assert "stablished" in card


def test_an_entry_is_loaded_by_any_of_its_names_or_by_itself():
    assert METHODS.canonical("APT") == "advtp"
    assert load_recipe("apt") == load_recipe("advtp")
    assert recipe_of(next(entry for entry in ENTRIES if entry.name == "apd")) == load_recipe("apd")


def test_an_override_changes_what_it_names_and_says_so():
    plain = load_recipe("apd")
    changed = load_recipe("apd", {"training": {"epochs": 3}}, {"objective": {"temperature": 2.0}})
    assert changed.training == {**plain.training, "epochs": 3}
    assert changed.objective_options == {**plain.objective_options, "temperature": 2.0}
    assert changed.sources["training.epochs"] == OVERRIDDEN
    assert changed.sources["training.lr"] == plain.sources["training.lr"]
    assert counted(changed) != counted(plain)
    assert load_recipe("apd", {"training": {"epochs": 10}}) == load_recipe("apd")
    assert load_recipe("zero_shot", {"training": {"epochs": 3}}) == load_recipe("zero_shot")


def test_a_preset_is_its_base_with_its_own_switches():
    base, preset = load_recipe("apd"), load_recipe("apd.rslad")
    assert preset.training == base.training
    assert preset.inner_attack == {**base.inner_attack, "loss": "kl", "start": "gaussian"}
    assert preset.objective_options["clean_weight"] == pytest.approx(1 / 6)
    assert preset.sources["objective.clean_weight"].startswith("code")


@pytest.mark.parametrize(("override", "message"), [
    ({"trainning": {"epochs": 1}}, "Did you mean 'training'"),
    ({"training": {"epoch": 1}}, "Did you mean 'epochs'"),
    ({"objective": {"temprature": 1}}, "Did you mean 'temperature'"),
    ({"training": {"epochs": 0}}, "nothing to train"),
    ({"training": {"epochs": 1.5}}, "whole number"),
    ({"training": {"lr": -1}}, "0 or more"),
    ({"training": {"optimizer": "adam"}}, "sgd, adamw"),
    ({"training": 5}, "is a table"),
    ({"objective": {"temperature": "2"}}, "temperature = '2' is not a number, such as 1.0"),
    ({"learner": {"text_tokens": True}}, "is not a number"),
    ({"learner": {"init": 3}}, "init = 3 is not text"),
])  # fmt: skip
def test_a_mistaken_override_is_explained(override, message):
    with pytest.raises(UsageError, match=message):
        load_recipe("apd", override)


BUDGET = {"training": {"epochs": 20, "optimizer": "adamw"}}
OWN = {"apd": {"learner": {"visual_tokens": 16, "init": "a picture of a"}, "training": {"lr": 0.01}}}


def test_in_a_suite_a_method_gets_the_common_budget_and_its_own_settings():
    recipe = suite_recipe("apd", BUDGET, OWN)
    assert recipe == load_recipe("apd", BUDGET, OWN["apd"])
    assert suite_recipe("advtp", BUDGET, OWN) == load_recipe("advtp", BUDGET)


@pytest.mark.parametrize("name", ["apd.rslad", "apd.offline", "apd(temperature=2)", "apd.rslad(temperature=2)"])
def test_in_a_suite_a_variant_differs_from_its_method_in_what_it_is_named_for_alone(name):
    method, variant = suite_recipe("apd", BUDGET, OWN), suite_recipe(name, BUDGET, OWN)
    assert (variant.learner_options, variant.training) == (method.learner_options, method.training)
    alone = load_recipe(name)
    assert (variant.objective_options, variant.inner_attack) == (alone.objective_options, alone.inner_attack)


def test_what_stands_in_the_name_beats_the_suite_and_its_budget_a_preset():
    recipe = suite_recipe("apd(epochs=40, visual_tokens=3)", BUDGET, OWN)
    assert recipe.training["epochs"] == 40
    assert recipe.learner_options["visual_tokens"] == 3
    assert recipe.learner_options["init"] == "a picture of a"
    recipe = suite_recipe("maple.cross-dataset", {"training": {"epochs": 20}}, {"maple": {"learner": {"depth": 4}}})
    assert recipe.training["epochs"] == 20
    assert recipe.training["lr"] == 0.0026
    assert recipe.learner_options["depth"] == 3
    own = {**OWN, "apd.rslad": {"learner": {"visual_tokens": 2}}}
    assert suite_recipe("apd.rslad", BUDGET, own).learner_options["visual_tokens"] == 2
    assert suite_recipe("apd", BUDGET, own).learner_options["visual_tokens"] == 16


@pytest.mark.parametrize(("method", "section", "values"), [
    ("vpt", "learner_options", {"text": "a photo of a {}."}),
    ("advvp", "learner_options", {"text": "a photo of a {}."}),
    ("advvp.frame", "training", {"lr": 40.0, "weight_decay": 5e-4, "warmup_epochs": 0}),
    ("advpt", "inner_attack", {"start": "uniform-positive"}),
    ("advtp.constant", "objective_options", {"text": "a photo of a {}"}),
    ("advmaple.trades", "inner_attack", {"start": "gaussian"}),
    ("advvlp.trades", "inner_attack", {"start": "gaussian"}),
    ("apd.rslad", "inner_attack", {"start": "gaussian"}),
    *((name, "training", {"last_batch": "drop"}) for name in BUILTIN if name != "zero_shot"),
])  # fmt: skip
def test_recipes_hold_what_the_official_code_does(method, section, values):
    table = getattr(load_recipe(method), section)
    assert {name: table[name] for name in values} == values


@pytest.mark.parametrize(
    ("method", "changes"), [("vpt", {"learner": {"text": ""}}), ("coop", {"training": {"last_batch": "keep"}})]
)
def test_a_default_that_came_later_is_as_if_nothing_were_said(method, changes):
    identity = counted(load_recipe(method, changes))
    assert "text" not in identity["learner_options"]
    assert ("last_batch" in identity["training"]) == (method == "vpt")
