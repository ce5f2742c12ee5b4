"""From a method's name to its `MethodRecipe`: the recipe file, its preset, and the overrides of a suite or a person."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.core.registry import METHODS
from apd_bench.core.specs import MethodRecipe
from apd_bench.methods.classes import needs_of
from apd_bench.methods.entry import MethodEntry
from apd_bench.methods.tables import SECTIONS, Sections, checked, numbers, overlay, override, read_toml

OVERRIDDEN = "set by the suite or on the command line"


@dataclass(frozen=True)
class Layer:
    """One step from a recipe file to a method: the file, a preset, a plug-in's difference, or a variant's options.

    `digest` is that of its code. `written` says that a person wrote the options into the method's name, so that no
    suite changes them.
    """

    name: str
    tables: Mapping[str, Any]
    sources: Mapping[str, str]
    digest: str | None = None
    written: bool = False


def load_recipe(name: str, *overrides: Mapping[str, Any]) -> MethodRecipe:
    """The recipe of the method `name` with `overrides` laid over it, the last one strongest.

    An override has the layout of a recipe: `{"training": {"epochs": 10}, "objective": {"temperature": 2.0}}`.
    Raises UnknownName for a method, section or option that does not exist.
    """
    return recipe_of(METHODS.get(name), *overrides)


def recipe_of(entry: MethodEntry, *overrides: Mapping[str, Any]) -> MethodRecipe:
    """The recipe of a registry entry, or of an entry that was never registered."""
    table, sources, digest = _stacked(entry, {}, {})
    for changes in overrides:
        table = _overridden(table, changes, entry.name, sources)
    return _recipe(entry, table, sources, digest)


def suite_recipe(name: str, common: Mapping[str, Any], by_method: Mapping[str, Mapping[str, Any]]) -> MethodRecipe:
    """The recipe of `name` inside a suite: `common` overrides every method, `by_method[METHOD]` one of them.

    What a suite sets for a method also holds for its presets and variants, which then differ from it in nothing but
    what they are named for. From weak to strong: the recipe file, `common`, `by_method` of the method, the preset (but
    not against `common`: a suite's budget is the same for all), `by_method` of the preset, and what stands in the name
    itself, as in `apd(epochs=40)`.
    """
    entry = METHODS.get(name)
    return _recipe(entry, *_stacked(entry, common, by_method))


def tables_of(entry: MethodEntry) -> tuple[Sections, dict[str, str]]:
    """The sections of an entry and the sources of their numbers, before any override."""
    table, sources, _ = _stacked(entry, {}, {})
    return table, _stated(table, sources)


def layers(entry: MethodEntry) -> list[Layer]:
    """What an entry is made of, from the recipe file up."""
    found: list[Layer] = []
    if entry.recipe is not None:
        whole = read_toml(entry.recipe)
        found.append(_layer(entry.name.removesuffix(f".{entry.preset}"), whole))
        if entry.preset is not None:
            presets = whole.get("presets", {})
            if entry.preset not in presets:
                raise unknown_name(f"preset of '{entry.recipe}'", entry.preset, presets)
            found.append(_layer(entry.name, presets[entry.preset]))
    elif entry.base is not None:
        found += layers(METHODS.get(entry.base))
    if entry.changes or not found:
        found.append(_layer(entry.name, entry.changes, entry.digest, written=entry.written))
    return found


def _layer(name: str, content: Mapping[str, Any], digest: str | None = None, *, written: bool = False) -> Layer:
    tables = {section: dict(content[section]) for section in SECTIONS if section in content}
    return Layer(name, tables, dict(content.get("sources", {})), digest, written)


def _stacked(
    entry: MethodEntry, common: Mapping[str, Any], by_method: Mapping[str, Mapping[str, Any]]
) -> tuple[Sections, dict[str, str], str | None]:
    """The layers of an entry laid over one another, as `suite_recipe` says: sections, sources, digests of the code."""
    table: Sections = {}
    sources: dict[str, str] = {}
    digests: dict[str, None] = {}
    for place, layer in enumerate(layers(entry)):
        tables = layer.tables
        if place and not layer.written:  # what `common` sets, no preset changes
            tables = {
                section: {name: value for name, value in options.items() if name not in common.get(section, {})}
                for section, options in tables.items()
            }
        table = overlay(table, tables)
        sources |= layer.sources
        digests |= dict.fromkeys((layer.digest or "").split("+"))
        if place == 0:
            table = _overridden(table, common, layer.name, sources)
        if layer.name in by_method:
            table = _overridden(table, by_method[layer.name], layer.name, sources)
    return table, sources, "+".join(filter(None, digests)) or None


def _overridden(table: Sections, changes: Mapping[str, Any], method: str, sources: dict[str, str]) -> Sections:
    """`table` with the overrides laid over it; `sources` learns which values came from there."""
    changed = override(table, changes, method)
    for section, options in changed.items():
        for option, value in options.items():
            if option not in table[section] or value != table[section][option]:
                sources[f"{section}.{option}"] = OVERRIDDEN
    return changed


def _stated(table: Sections, sources: Mapping[str, str]) -> dict[str, str]:
    stated = set(numbers(table))
    return {name: source for name, source in sources.items() if name in stated}


def _recipe(entry: MethodEntry, table: Sections, sources: dict[str, str], digest: str | None) -> MethodRecipe:
    # An empty `text` means the set's template, as if nothing were said: one identity.
    learner, objective = (
        {name: value for name, value in table.get(section, {}).items() if (name, value) != ("text", "")}
        for section in ("learner", "objective")
    )
    for section, options in (("learner", learner), ("objective", objective)):
        if "kind" not in options and (section == "learner" or section in table):
            raise UsageError(
                f"The recipe of '{entry.name}' names no {section}.",
                hint=f"Add [{section}] kind = '{'independent' if section == 'learner' else '...'}'.",
            )
    kind, trains = str(learner.pop("kind")), "objective" in table
    return MethodRecipe(
        name=entry.name,
        learner=kind,
        objective=str(objective.pop("kind")) if trains else None,
        learner_options=learner,
        objective_options=objective,
        inner_attack=checked("inner_attack", table["inner_attack"]) if trains and "inner_attack" in table else {},
        training=checked("training", table.get("training", {})) if trains else {},
        needs=needs_of(kind, digest),
        sources=_stated(table, sources),
        title=entry.title,
        paper=entry.paper,
        digest=digest,
        state=entry.state,
        reconstruction=entry.reconstruction,
    )
