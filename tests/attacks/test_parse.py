"""What a user types becomes one canonical spec, or one message."""

import pytest

from apd_bench.attacks import catalog, parse
from apd_bench.attacks.parse import all_options, entry_within, parse_attack
from apd_bench.core.errors import MissingPrerequisite, UnknownName, UsageError
from apd_bench.core.specs import AttackSpec, ThreatModel


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
