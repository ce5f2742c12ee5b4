"""What is asked for becomes canonical names, and what does not exist is named with its nearest match."""

import pytest
from fakes import REAL

from apd_bench.core.errors import UnknownName, UsageError
from apd_bench.core.options import RunOptions
from apd_bench.core.registry import DATASETS, METHODS
from apd_bench.runner.plan import plan
from apd_bench.runner.selection import describe, resolve, split_list
from apd_bench.suites import load_suite, suite_from

METHODS_OF_IT = {"methods": ("apd", "advtp"), "reference": ("zero_shot",)}
SUITE = REAL.with_options(**METHODS_OF_IT, datasets=("embedded",), attacks=("pgd", "cw"))
EMBEDDED = [item.name for item in DATASETS if item.group == "embedded"]


def test_lists_split_at_commas_and_spaces_but_not_inside_brackets():
    assert split_list("a, b c,,d") == ["a", "b", "c", "d"]
    assert split_list(["a,b", "c"]) == ["a", "b", "c"]
    assert split_list(f"{'long' * 200},c") == ["long" * 200, "c"]
    calls = ["pgd(steps=9, loss='ce')", "aa(members=['apgd-ce', 'square'])"]
    assert split_list(f"{calls[0]},cw {calls[1]}") == [calls[0], "cw", calls[1]]


def test_nothing_asked_is_the_suite_aliases_become_canonical_and_twice_is_once():
    suite = resolve(SUITE)
    assert list(suite.datasets) == EMBEDDED
    assert sorted(suite.methods) == ["advtp", "apd"]
    assert suite.attacks == ("pgd", "cw")
    suite = resolve(SUITE, RunOptions(methods=("apt", "advtp"), attacks=("aa", "autoattack"), eps=("2/255", "2/255")))
    assert suite.methods == ("advtp",)
    assert suite.attacks == ("autoattack",)
    assert suite.eps == (2 / 255,)


def test_all_datasets_are_those_of_the_suite_and_names_may_be_any():
    assert list(resolve(SUITE, RunOptions(datasets=("all",))).datasets) == EMBEDDED
    assert resolve(SUITE, RunOptions(datasets=("eurosat",))).datasets == ("eurosat",)
    assert "fashion" not in resolve(SUITE, RunOptions(datasets=("!fashion",))).datasets
    assert set(resolve(SUITE, RunOptions(datasets=("f*", "!food"))).datasets) == {
        name for name in EMBEDDED if name.startswith("f") and name != "food"
    }
    assert resolve(SUITE, RunOptions(datasets=("imagenet_*",))).datasets  # none in the suite: all registered ones
    assert set(resolve(SUITE, RunOptions(datasets=("embedded", "eurosat"))).datasets) == {*EMBEDDED, "eurosat"}


def test_all_methods_are_all_registered_ones_and_attacks_keep_their_options():
    registered = [name for name in METHODS.names() if "(" not in name]  # calls are what somebody wrote
    assert list(resolve(SUITE, RunOptions(methods=("all",))).methods) == registered
    assert resolve(SUITE, RunOptions(methods=("!apd",))).methods == ("advtp",)
    assert resolve(SUITE, RunOptions(attacks=("pgd(steps=7)", "cw"))).attacks == ("pgd(steps=7)", "cw")
    assert resolve(SUITE, RunOptions(attacks=("pgd(steps=40)",))).attacks == ("pgd",)  # that is the default
    assert resolve(SUITE, RunOptions(attacks=("all", "fgsm"))).attacks == ("pgd", "cw", "fgsm")
    assert resolve(SUITE, RunOptions(attacks=("!cw",))).attacks == ("pgd",)


def test_numbers_replace_those_of_the_suite_and_the_reference_can_be_left_out():
    suite = resolve(SUITE, RunOptions(seeds=(3, 4, 3), shots=(1,), limit=5, eps=("0", "1/255")))
    assert (suite.seeds, suite.shots, suite.limit, suite.eps) == ((3, 4), (1,), 5, (0.0, 1 / 255))
    limited = SUITE.with_options(limit=20)
    assert resolve(limited).limit == 20
    assert resolve(limited, RunOptions(limit=0)).limit is None
    assert resolve(SUITE).reference == ("zero_shot",)
    assert resolve(SUITE, RunOptions(no_reference=True)).reference == ()


@pytest.mark.parametrize(("settings", "recipe", "recipes"), [
    (("training.epochs=5",), {"training": {"epochs": 5}}, {}),
    (("training.lr=0.5", "training.epochs=5"), {"training": {"lr": 0.5, "epochs": 5}}, {}),
    (("apt.training.epochs=5",), {}, {"advtp": {"training": {"epochs": 5}}}),
    (("recipes.apd.objective.temperature=2",), {}, {"apd": {"objective": {"temperature": 2}}}),
    (("learner.init=a photo of a",), {"learner": {"init": "a photo of a"}}, {}),
])  # fmt: skip
def test_single_settings_reach_the_recipe_they_name(settings, recipe, recipes):
    suite = resolve(SUITE, RunOptions(settings=settings))
    assert suite.recipe == recipe
    assert suite.recipes == recipes


def test_settings_of_a_variant_and_of_the_suite_survive_its_description():
    name = next(name for name in METHODS.names() if name.startswith("apd."))
    suite = resolve(SUITE, RunOptions(settings=(f"{name}.training.epochs=5",)))
    assert suite.recipes == {name: {"training": {"epochs": 5}}}
    suite = resolve(SUITE, RunOptions(settings=("precision=bf16", "train_eps=4/255", "resize=squash")))
    assert (suite.precision, suite.train_eps, suite.resize) == ("bf16", 4 / 255, "squash")
    suite = resolve(load_suite("ci"), RunOptions(settings=("apd.training.epochs=2", "train_eps=1/255")))
    assert resolve(suite_from(describe(suite))) == suite


@pytest.mark.parametrize(("options", "kind", "words"), [
    (RunOptions(datasets=("zz*",)), UnknownName, "Unknown dataset 'zz"),
    (RunOptions(attacks=("pgdd",)), UnknownName, "Unknown attack 'pgdd'"),
    (RunOptions(attacks=("pgd(step_count=3)",)), UnknownName, "step_count"),
    (RunOptions(backbones=("tiny",)), UnknownName, "tiny-clean"),
    (RunOptions(settings=("epochs=3",)), UnknownName, "Unknown setting 'epochs'"),
    (RunOptions(settings=("training.epochs",)), UsageError, "KEY=VALUE"),
    (RunOptions(settings=("precision=fp8",)), UsageError, "bf16"),
    (RunOptions(attacks=("!pgd", "!cw")), UsageError, "names no attacks"),
])  # fmt: skip
def test_mistakes_are_named(options, kind, words):
    with pytest.raises(kind, match=words):
        resolve(SUITE, options)


def test_a_setting_for_all_methods_counts_above_the_suites_own_recipes_and_below_one_for_a_method():
    suite = load_suite("embedded")
    assert suite.recipes["apd"]["training"]["epochs"] == 18
    settings = ("advtp.training.epochs=2", "training.epochs=5")
    cells = plan(resolve(suite, RunOptions(methods=("apd,apt,coop",), settings=settings))).cells
    epochs = {cell.fit.method.name: cell.fit.method.training.get("epochs") for cell in cells}
    assert epochs == {"zero_shot": None, "apd": 5, "advtp": 2, "coop": 5}
    rates = {cell.fit.method.name: cell.fit.method.training.get("lr") for cell in cells}
    assert rates["apd"] == suite.recipes["apd"]["training"]["lr"]
