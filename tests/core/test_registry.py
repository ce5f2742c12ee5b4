"""A registry finds entries by name, alias and wildcard, and refuses what it cannot serve in one line."""

from dataclasses import dataclass
from importlib.metadata import EntryPoint

import pytest

from apd_bench.core import registry as registry_module
from apd_bench.core.errors import UnknownName, UsageError
from apd_bench.core.registry import Registry
from apd_bench.core.targets import resolve as resolve_target


@dataclass(frozen=True)
class Thing:
    name: str
    aliases: tuple[str, ...] = ()


def builtin():
    return [Thing("advtp", ("apt",)), Thing("apd"), Thing("apd.rslad"), Thing("zero_shot", ("clip",))]


def resolve(name):
    return Thing(name) if name.startswith("file:") else None


@pytest.fixture
def things(monkeypatch):
    found = {"here:builtin": builtin, "somewhere:resolve": resolve}
    monkeypatch.setattr(registry_module, "resolve", lambda target, kind: found.get(target, object))
    return Registry(kind="thing", catalog="here", group="apd_bench.test_things", list_command="apd-bench list things")


def test_names_aliases_and_selections_in_catalog_order_and_unknown_ones_are_refused(things):
    assert things.get("apt").name == "advtp"
    assert things.get("APD").name == "apd"
    assert things.aliases() == {"apt": "advtp", "clip": "zero_shot"}
    with pytest.raises(UnknownName, match="Did you mean 'apd'"):
        things.get("adp")
    with pytest.raises(UnknownName, match="nothing_"):
        things.select(["nothing_*"])
    assert things.select(["apd", "apt", "advtp"]) == ["advtp", "apd"]
    assert things.select(["all"]) == ["advtp", "apd", "apd.rslad", "zero_shot"]
    assert things.select(["all", "!apd*"]) == ["advtp", "zero_shot"]
    assert things.select(["!clip"]) == ["advtp", "apd", "apd.rslad"]
    assert things.select(["all"], universe=["apd", "zero_shot"]) == ["apd", "zero_shot"]


def test_a_taken_name_or_alias_is_refused_naming_both(things):
    with pytest.raises(UsageError, match="'apt' of elsewhere is already taken by 'advtp'"):
        things.register(Thing("mine", ("apt",)), origin="elsewhere")
    with pytest.raises(UsageError, match="'apd' of elsewhere is already taken by 'apd' \\(built-in\\)"):
        things.register(Thing("mine", ("apd",)), origin="elsewhere")
    with pytest.raises(UsageError, match="'APD' of elsewhere is already taken by 'apd'"):
        things.register(Thing("APD"), origin="elsewhere")
    assert "mine" not in things.names()


@pytest.mark.parametrize("name", ["all", "a b", "!a", "a(b=1)", "x.py:y", "a*", "", 3])
def test_a_name_that_cannot_be_typed_is_refused(things, name):
    with pytest.raises(UsageError, match="is no name for a thing"):
        things.register(Thing(name))


def test_entries_come_and_go_and_other_names_go_through_the_resolver(things):
    things.register(Thing("mine", ("m",)))
    assert things.get("m").name == "mine"
    things.unregister("mine")
    with pytest.raises(UnknownName):
        things.get("mine")
    things.resolver = "somewhere:resolve"
    assert things.get("file:own.py").name == "file:own.py"
    assert things.get("file:own.py") is things.get("file:own.py")


def test_a_broken_plugin_or_target_is_named(things, monkeypatch):
    point = EntryPoint(name="bad", value="no_such_module:thing", group="apd_bench.test_things")
    monkeypatch.setattr(registry_module, "entry_points", lambda group: [point])
    with pytest.raises(UsageError, match="plug-in 'bad'"):
        things.names()
    with pytest.raises(UsageError, match="no_such"):
        resolve_target("apd_bench.core.errors:no_such", object)
    assert resolve_target("apd_bench.core.errors:UserError.exit_code", int) == 2
    with pytest.raises(UsageError, match="is a int, not a type"):
        resolve_target("apd_bench.core.errors:UserError.exit_code", type)
