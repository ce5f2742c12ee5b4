"""From a method's name to its `MethodRecipe`: the recipe file, its preset, and the overrides of a suite or a person."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from apd_bench.errors import UsageError, unknown_name
from apd_bench.methods.catalog import MethodEntry
from apd_bench.methods.tables import SECTIONS, Table, checked, numbers, overlay, override, read_toml
from apd_bench.prompts.catalog import NEEDS
from apd_bench.registry import METHODS
from apd_bench.specs import MethodRecipe

OVERRIDDEN = "set by the suite or on the command line"


def load_recipe(name: str, *overrides: Mapping[str, Any]) -> MethodRecipe:
    """The recipe of the method `name` with `overrides` laid over it, the last one strongest.

    An override has the layout of a recipe: `{"training": {"epochs": 10}, "objective": {"temperature": 2.0}}`.
    Raises UnknownName for a method, section or option that does not exist.
    """
    return recipe_of(METHODS.get(name), *overrides)


def recipe_of(entry: MethodEntry, *overrides: Mapping[str, Any]) -> MethodRecipe:
    """The recipe of a registry entry, or of an entry that was never registered."""
    table, sources, needs = tables_of(entry)
    for changes in overrides:
        before = table
        table = override(table, changes, entry.name)
        for section in SECTIONS:
            for option, value in table.get(section, {}).items():
                if option not in before.get(section, {}) or value != before[section][option]:
                    sources[f"{section}.{option}"] = OVERRIDDEN
    return _recipe(entry, table, sources, needs)


def tables_of(entry: MethodEntry) -> tuple[Table, dict[str, str], tuple[str, ...]]:
    """The sections, the sources and the needs of an entry, before any override."""
    if entry.recipe is not None:
        whole = read_toml(entry.recipe)
        table = {section: dict(whole[section]) for section in SECTIONS if section in whole}
        sources = dict(whole.get("sources", {}))
        needs = tuple(whole.get("method", {}).get("needs", ()))
        if entry.preset is not None:
            presets = whole.get("presets", {})
            if entry.preset not in presets:
                raise unknown_name(f"preset of '{entry.recipe}'", entry.preset, presets)
            preset = presets[entry.preset]
            table = overlay(table, preset)
            sources |= preset.get("sources", {})
            needs = tuple(preset.get("needs", needs))
    elif entry.base is not None:
        table, sources, needs = tables_of(METHODS.get(entry.base))
    else:
        table, sources, needs = {}, {}, ()
    if entry.changes:
        table = overlay(table, entry.changes)
        sources |= entry.changes.get("sources", {})
        needs = tuple(entry.changes.get("needs", needs))
    stated = set(numbers(table))
    return table, {name: source for name, source in sources.items() if name in stated}, needs


def _recipe(entry: MethodEntry, table: Table, sources: dict[str, str], needs: tuple[str, ...]) -> MethodRecipe:
    learner = dict(table.get("learner", {}))
    if "kind" not in learner:
        raise UsageError(f"The recipe of '{entry.name}' names no learner.", hint="Add [learner] kind = 'independent'.")
    kind = str(learner.pop("kind"))
    needs = needs or NEEDS.get(kind, ())
    plain = MethodRecipe(
        name=entry.name,
        learner=kind,
        objective=None,
        learner_options=learner,
        needs=needs,
        sources=sources,
        title=entry.title,
        paper=entry.paper,
        digest=entry.digest,
        code=entry.code,
    )
    if "objective" not in table:
        return plain
    objective = dict(table["objective"])
    if "kind" not in objective:
        raise UsageError(f"The recipe of '{entry.name}' names no objective.", hint="Add [objective] kind = '...'.")
    return replace(
        plain,
        objective=str(objective.pop("kind")),
        objective_options=objective,
        inner_attack=checked("inner_attack", table["inner_attack"]) if "inner_attack" in table else {},
        training=checked("training", table.get("training", {})),
    )
