"""What a user types becomes one canonical spec, or one message; every entry takes the options that it declares."""

import inspect

import pytest

from apd_bench.attacks import catalog, parse
from apd_bench.attacks.parse import all_options, entry_within, parse_attack
from apd_bench.core.errors import IncompatibleChoice, MissingPrerequisite, UnknownName, UsageError
from apd_bench.core.registry import ATTACKS
from apd_bench.core.specs import AttackSpec, ThreatModel
from apd_bench.core.targets import resolve


def test_options_equal_to_their_default_leave_no_trace_and_defaults_fill_what_was_not_said():
    assert parse_attack("pgd(steps=40, restarts=1)") == AttackSpec(name="pgd")
    assert parse_attack("cw-linf(steps=100.0)").label == "cw(steps=100)"
    assert parse_attack("aa(members='apgd-ce')").options == {"members": ("apgd-ce",)}
    assert all_options(parse_attack("pgd.apt(restarts=2)")) == {
        "steps": 100, "step": 0.25, "schedule": "constant", "restarts": 2, "start": "uniform", "loss": "ce",
    }  # fmt: skip


@pytest.mark.parametrize(("text", "said"), [
    ("autoatack", "Did you mean 'autoattack'"),
    ("pgd(step_size=1)", "option of pgd 'step_size'"),
    ("pgd(loss='cross-entropy')", "Available: ce, dlr, margin, stable-ce"),
    ("autoattack(members=('apgd',))", "members of autoattack 'apgd'"),
])  # fmt: skip
def test_an_unknown_name_gets_what_exists(text, said):
    with pytest.raises(UnknownName) as caught:
        parse_attack(text)
    assert said in str(caught.value)


@pytest.mark.parametrize(("text", "said"), [
    ("pgd(steps=0)", "whole number of at least 1"),
    ("pgd(steps=2.5)", "whole number of at least 1"),
    (f"pgd(step={10**400})", "number above 0"),
    ("pgd(step=1e400)", "number above 0"),
    ("pgd(steps=True)", "has to be a number"),
    ("pgd(step=-1)", "number above 0"),
    ("pgd(step='big')", "has to be a number"),
    ("autoattack(members=())", "list of names"),
])  # fmt: skip
def test_a_value_that_cannot_be_is_refused(text, said):
    with pytest.raises(UsageError) as caught:
        parse_attack(text)
    assert said in str(caught.value)


def test_a_missing_extra_names_the_command(monkeypatch):
    monkeypatch.setattr(parse, "find_spec", lambda name: None)
    monkeypatch.setattr(catalog, "find_spec", lambda name: None)
    entry_within(AttackSpec(name="pgd"), ThreatModel(eps=0.1))
    with pytest.raises(MissingPrerequisite, match=r"pip install 'apd-bench\[torchattacks\]'"):
        entry_within(parse_attack("torchattacks:PGD"), ThreatModel(eps=0.1))


ENTRIES = list(catalog.builtin())


@pytest.mark.parametrize("entry", ENTRIES, ids=lambda entry: entry.name)
def test_the_function_takes_the_declared_options_and_has_no_defaults_of_its_own(entry):
    first, *options = inspect.signature(resolve(entry.target, object)).parameters.values()
    assert first.name == "search"
    assert {item.name for item in options if item.default is item.empty} == entry.defaults.keys()
    assert all(item.kind is item.KEYWORD_ONLY for item in options)
    texts = {name for name, value in entry.defaults.items() if isinstance(value, (str, tuple))}
    assert texts <= entry.choices.keys()
    for name in texts:
        values = entry.defaults[name]
        assert set((values,) if isinstance(values, str) else values) <= set(entry.choices[name])


def test_aliases_of_the_field_and_presets_of_the_published_protocols():
    assert ATTACKS.canonical("aa") == "autoattack"
    assert ATTACKS.canonical("cw-linf") == "cw"
    assert ATTACKS.canonical("PGD.sound") == "pgd"
    literature, apt = ATTACKS.get("pgd.literature").defaults, ATTACKS.get("pgd.apt").defaults
    assert (literature["steps"], literature["step"], literature["schedule"]) == (100, 1.0, "constant")
    assert (apt["steps"], apt["step"], apt["schedule"]) == (100, 0.25, "constant")


@pytest.mark.parametrize(("name", "instead"), [("CW", "cw-l2"), ("autoattack", "autoattack")])
def test_the_two_broken_ones_of_torchattacks_are_refused_with_what_to_use(name, instead):
    with pytest.raises(IncompatibleChoice) as caught:
        ATTACKS.get(f"torchattacks:{name}")
    assert f"'{instead}'" in str(caught.value)


def test_without_the_package_the_name_stands_and_with_it_the_spelling_is_checked(monkeypatch):
    monkeypatch.setattr(catalog, "find_spec", lambda name: None)
    entry = catalog.resolve("torchattacks:DIFGSM")
    assert entry is not None and entry.extra == "torchattacks" and entry.fixed == {"library_name": "DIFGSM"}
    monkeypatch.setattr(catalog, "torchattacks_names", lambda: ["DIFGSM", "PGD"])
    assert catalog.resolve("torchattacks:pgd").name == "torchattacks:PGD"
    with pytest.raises(UnknownName, match="Did you mean 'DIFGSM'"):
        catalog.resolve("torchattacks:DIFGSN")
    assert catalog.resolve("pgd5") is None


def test_names_of_the_installed_library():
    pytest.importorskip("torchattacks")
    names = catalog.torchattacks_names()
    assert {"PGD", "DIFGSM", "Square"} <= set(names)
    assert not {"CW", "AutoAttack", "MultiAttack"} & set(names)
