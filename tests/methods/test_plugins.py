"""Methods from outside: a file, an entry point, a plain object, a trained state; and what is said when one is wrong."""

import argparse
import dataclasses
import json
import pickle
import subprocess
import sys
from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest
import torch

from apd_bench.cli import check as check_verb
from apd_bench.core.errors import CorruptFile, UsageError
from apd_bench.core.identity import counted
from apd_bench.core.registry import METHODS, Registry, plugin_files
from apd_bench.methods.adversarial import AdversarialCrossEntropy
from apd_bench.methods.classes import _CLASSES, load_class
from apd_bench.methods.clean import CleanCrossEntropy
from apd_bench.methods.recipes import load_recipe, recipe_of
from apd_bench.plugin import Objective, define
from apd_bench.prompts.coupled import CoupledLearner
from apd_bench.training.contract import check
from apd_bench.training.fit import fit
from apd_bench.training.prompt_states import save_state
from apd_bench.training.toy import toy_fit
from tests.pages import EXAMPLES

resolve = METHODS.get
QUICK = {"training": {"epochs": 1, "batch_size": 8, "warmup_epochs": 0}}


@dataclass
class Twice(Objective):
    factor: float = 2.0

    def __call__(self, student, batch, adversary, teacher):
        return {"ce": self.factor * torch.nn.functional.cross_entropy(student(batch.pixels).logits, batch.labels)}


@pytest.fixture
def example(tmp_path):
    path = tmp_path / "own_method.py"
    path.write_text(EXAMPLES["own_method.py"])
    return path


def test_a_method_in_a_file_is_identified_by_its_content_not_by_its_path(tmp_path):
    copies = [tmp_path / "one.py", tmp_path / "folder" / "two.py"]
    copies[1].parent.mkdir()
    for copy in copies:
        copy.write_text(EXAMPLES["own_method.py"])
    one, two = (recipe_of(resolve(f"{copy}:SMOOTH")) for copy in copies)
    assert counted(one) == counted(two)
    copies[1].write_text(EXAMPLES["own_method.py"].replace("label_smoothing=self.smoothing", "label_smoothing=0.2"))
    assert counted(recipe_of(resolve(f"{copies[1]}:SMOOTH"))) != counted(one)


def test_the_recipe_of_a_plugin_travels_to_another_process(example):
    recipe = recipe_of(resolve(f"{example}:SMOOTH"))
    code = (
        "import pickle, sys\nfrom apd_bench.core.registry import name_plugins\n"
        "from apd_bench.methods.objective import Objective\nfrom apd_bench.methods.classes import load_class\n"
        "named, recipe = pickle.load(sys.stdin.buffer)\nname_plugins(named)\n"
        "print(load_class('objective', recipe, Objective).__name__)"
    )
    sent = pickle.dumps((plugin_files(), recipe))
    done = subprocess.run([sys.executable, "-c", code], input=sent, capture_output=True, check=True)
    assert done.stdout.strip() == b"SmoothedAndAnchored" and str(example) not in pickle.dumps(recipe).decode("latin-1")


def test_other_code_than_the_recorded_one_is_refused_with_what_to_give(example):
    recipe = recipe_of(resolve(f"{example}:SMOOTH"))
    other = dataclasses.replace(recipe, digest="0123456789abcdef")
    with pytest.raises(UsageError, match="of digest 0123456789abcdef; the one that is here has") as caught:
        load_class("objective", other, Objective)
    assert "--methods FILE.py:NAME" in caught.value.hint
    with pytest.raises(UsageError, match="which is not here"):
        load_class("objective", dataclasses.replace(other, objective="Another"), Objective)


@pytest.mark.parametrize(("content", "asked", "message"), [
    (None, "missing.py:METHOD", "There is no file"),
    ("x = 1 +", "mine.py:METHOD", "SyntaxError"),
    ("import nowhere", "mine.py:METHOD", "No module named 'nowhere'"),
    ("SMOOTH = 1", "mine.py:SMOTH", "Did you mean"),
    ("METHOD = 1", "mine.py:METHOD", "is a int, not a method"),
])  # fmt: skip
def test_a_wrong_file_is_explained(tmp_path, content, asked, message):
    if content is not None:
        (tmp_path / "mine.py").write_text(content)
    with pytest.raises(UsageError, match=message):
        resolve(str(tmp_path / asked))


def test_a_plain_object_is_a_method_whose_code_counts(backbone, data):
    entry = define("doubled", base="coop", objective=Twice, objective_options={"factor": 3.0})
    recipe = recipe_of(entry, QUICK)
    assert recipe.objective == "Twice"
    assert fit(toy_fit(recipe, backbone, data), backbone, data).card["history"][0]["ce"] > 0
    assert recipe_of(define("doubled", base="coop", objective=Twice)).digest is not None
    assert recipe_of(define("same", base="coop", objective=CleanCrossEntropy)).digest is None


def test_what_a_class_needs_is_known_when_planning():
    class Mine(CoupledLearner):
        pass

    assert set(recipe_of(define("mine", base="coop", learner=Mine)).needs) == set(CoupledLearner.needs)
    Mine.needs = ("frme",)
    with pytest.raises(UsageError, match=r"Unknown need of .*Mine 'frme'. Did you mean 'frame'?"):
        define("mine", base="coop", learner=Mine)


def test_a_method_builds_on_the_class_of_another_plugin(example, backbone, data):
    METHODS.get(f"{example}:SMOOTH")
    derived = define("smoother", base="smooth", objective_options={"smoothing": 0.2})
    recipe = recipe_of(derived, QUICK)
    assert recipe.digest == load_recipe("smooth").digest and recipe.needs == load_recipe("advvlp").needs
    assert fit(toy_fit(recipe, backbone, data), backbone, data).card["history"][0]["anchor"] > 0


def test_a_class_typed_into_a_session_works_in_that_session_alone():
    typed = type("Typed", (CleanCrossEntropy,), {"__module__": "__main__"})
    recipe = recipe_of(define("typed", base="coop", objective=typed))
    assert load_class("objective", recipe, Objective) is typed
    del _CLASSES["Typed", recipe.digest]  # as in another process
    with pytest.raises(UsageError, match="which is not here"):
        load_class("objective", recipe, Objective)


def test_a_plugin_comes_through_an_entry_point(monkeypatch):
    point = EntryPoint("twice", f"{__name__}:TWICE", "apd_bench.methods")
    monkeypatch.setattr("apd_bench.core.registry.entry_points", lambda group: [point] if group == point.group else [])
    monkeypatch.setattr(EntryPoint, "load", lambda self: define("twice", base="coop", objective=Twice))
    registry = Registry("method", "apd_bench.methods.catalog", "apd_bench.methods", "apd-bench list methods")
    assert registry.get("twice").base == "coop"
    assert registry.origin("twice") != "built-in"


def test_define_refuses_a_section_that_does_not_exist_and_a_taken_class_name():
    with pytest.raises(UsageError, match="Did you mean 'training'"):
        define("mine", base="coop", trainings={"epochs": 1})
    with pytest.raises(UsageError, match="has the name of a objective of this package"):
        define("mine", base="coop", objective=type("distillation", (Objective,), {"__module__": __name__}))


def test_a_variant_is_written_like_a_call_and_has_one_name():
    variant = load_recipe("apd(temperature=2, inner_loss='kl', text_tokens=4, epochs=3)")
    plain = load_recipe("apd")
    assert variant.name == "apd(epochs=3, inner_loss='kl', temperature=2, text_tokens=4)"
    assert variant.objective_options == {**plain.objective_options, "temperature": 2}
    assert variant.inner_attack == {**plain.inner_attack, "loss": "kl"}
    assert variant.learner_options == {**plain.learner_options, "text_tokens": 4}
    assert variant.training == {**plain.training, "epochs": 3}
    assert variant.sources["objective.temperature"].startswith("variant")
    assert METHODS.canonical("apd(temperature=1)") == "apd"
    one = METHODS.canonical("apd(direction='reverse', temperature=2)")
    assert METHODS.canonical("apd( temperature = 2.0, direction = 'reverse' )") == one
    recipe = load_recipe("apd.rslad(temperature=4)")
    assert recipe.inner_attack["loss"] == "kl"
    assert recipe.objective_options["temperature"] == 4


@pytest.mark.parametrize(("text", "message"), [
    ("apd(temprature=2)", "Did you mean 'temperature'"),
    ("apdd(temperature=2)", "Did you mean 'apd'"),
    ("apd(2)", "does not read as NAME"),
    ("fap(difference=3)", "difference = 3 is not true or false"),
    ("zero_shot(tokens=2)", "Available: text"),
])  # fmt: skip
def test_a_wrong_variant_is_explained(text, message):
    with pytest.raises(UsageError, match=message):
        load_recipe(text)


def test_a_trained_state_is_a_method_that_trains_nothing_and_a_broken_card_is_none(backbone, data, tmp_path):
    state = fit(toy_fit(load_recipe("apd", QUICK), backbone, data), backbone, data)
    save_state(tmp_path / "mine", state)
    recipe = load_recipe(str(tmp_path / "mine"))
    assert recipe.name == f"apd@{state.card['digest'][:8]}"
    assert not recipe.trains
    assert recipe.needs == load_recipe("apd").needs
    again = fit(toy_fit(recipe, backbone, data), backbone, data)
    assert all(torch.equal(again.state[name], tensor) for name, tensor in state.state.items())
    moved = tmp_path / "elsewhere"
    (tmp_path / "mine").rename(moved)
    assert counted(load_recipe(str(moved))) == counted(recipe)
    (tmp_path / "card.json").write_text(json.dumps({"digest": 1}))
    with pytest.raises(CorruptFile, match="not a prompt state"):
        resolve(str(tmp_path))


@pytest.mark.parametrize("name", ["apd", "apt", "APD", "folder/x.py:y"])
def test_a_plugin_that_takes_a_name_is_refused(name, tmp_path):
    (tmp_path / "mine.py").write_text(EXAMPLES["own_method.py"].replace('"smooth"', repr(name)))
    with pytest.raises(UsageError, match=f"'{name}' (of .*mine.py:SMOOTH is already taken by|is no name for)"):
        METHODS.get(f"{tmp_path / 'mine.py'}:SMOOTH")


@dataclass
class Unseeded(AdversarialCrossEntropy):
    def __call__(self, student, batch, adversary, teacher):
        terms = super().__call__(student, batch, adversary, teacher)
        return {name: value * torch.rand(()) for name, value in terms.items()}


@dataclass
class Blind(CleanCrossEntropy):
    def __call__(self, student, batch, adversary, teacher):
        return {"ce": student(batch.pixels).logits.detach().sum()}


@pytest.mark.parametrize(("objective", "failing", "detail"), [
    (Unseeded, "the seed decides", "use the generators"),
    (Blind, "only its prompts are trained, and all of them", "RuntimeError"),
    (Objective, "one step lowers its own loss", "has no loss"),
])  # fmt: skip
def test_check_names_what_fails_and_why(objective, failing, detail, backbone):
    results = check(define("wrong", base="advvlp", objective=objective), backbone=backbone)
    found = {result.name: result.detail for result in results if not result.passed}
    assert failing in found
    assert detail in found[failing]


def test_check_needs_an_inner_attack_where_the_objective_attacks(backbone):
    results = check(define("wrong", base="coop", objective=AdversarialCrossEntropy), backbone=backbone)
    assert "recipe and objective fit together" in {result.name for result in results if not result.passed}


def test_the_verb_prints_one_line_a_check_and_fails_with_1(capsys, tmp_path):
    parser = argparse.ArgumentParser()
    check_verb.add_arguments(parser)
    assert check_verb.execute(parser.parse_args(["zero_shot"])) == 0
    assert "zero_shot: all checks hold" in capsys.readouterr().out
    wrong = tmp_path / "wrong.py"
    wrong.write_text(
        "from apd_bench.plugin import Objective, define\n"
        "class Empty(Objective):\n    pass\n"
        "METHOD = define('empty', base='coop', objective=Empty)\n"
    )
    assert check_verb.execute(parser.parse_args([f"{wrong}:METHOD"])) == 1
    assert "FAIL  one step lowers its own loss" in capsys.readouterr().out
