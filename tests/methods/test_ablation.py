"""The ablation suites cover APD's open switches, and each of their rows is a different method."""

import itertools

import pytest

from apd_bench.core.identity import digest
from apd_bench.methods.recipes import load_recipe, suite_recipe
from apd_bench.suites import load_suite


@pytest.mark.parametrize("name", ["apd-ablation", "apd-ablation-full"])
def test_every_row_is_another_method_and_they_differ_in_their_losses_alone(name):
    suite = load_suite(name)
    recipes = [load_recipe(method) for method in suite.methods]
    options = {digest([recipe.objective_options, recipe.inner_attack]) for recipe in recipes}
    assert len(options) == len(recipes)
    bimodal = [method for method in (*suite.methods, *suite.reference) if method != "zero_shot"]
    recipes = [suite_recipe(method, suite.recipe, suite.recipes) for method in bimodal]
    assert len({digest([recipe.learner, recipe.learner_options, recipe.training]) for recipe in recipes}) == 1


def test_the_full_grid_is_complete():
    rows = set()
    for method in load_suite("apd-ablation-full").methods:
        recipe = load_recipe(method)
        options = recipe.objective_options
        rows.add((
            options["teacher"], options["direction"], recipe.inner_attack["loss"], options["temperature"],
            options["label_weight"],
        ))  # fmt: skip
    grid = itertools.product(
        ("online", "offline", "zero_shot"), ("forward", "reverse"), ("ce", "kl"), (1, 2, 4), (0, 0.5)
    )
    assert rows == set(grid)


def test_every_switch_is_changed_in_some_row_of_the_short_suite():
    plain = load_recipe("apd").objective_options
    rows = [load_recipe(method) for method in load_suite("apd-ablation").methods]
    changed = {key for row in rows for key, value in row.objective_options.items() if value != plain[key]}
    assert changed == set(plain) and "kl" in {row.inner_attack["loss"] for row in rows}
