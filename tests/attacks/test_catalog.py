"""Names and entries: every target exists and takes exactly the options that its entry declares."""

import inspect

import pytest

from apd_bench.attacks import catalog
from apd_bench.core.errors import IncompatibleChoice, UnknownName
from apd_bench.core.registry import ATTACKS
from apd_bench.core.targets import resolve

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
