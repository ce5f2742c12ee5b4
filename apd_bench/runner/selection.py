"""What a person asks for on top of a suite: lists, wildcards, exclusions and single settings, laid over its fields."""

import ast
import re
from collections.abc import Callable, Iterable, Mapping
from typing import Any

from apd_bench.attacks.parse import parse_attack
from apd_bench.core.errors import UnknownName, UsageError, unknown_name
from apd_bench.core.options import RunOptions
from apd_bench.core.registry import ATTACKS, BACKBONES, DATASETS, DEFENCES, METHODS, Registry
from apd_bench.core.specs import AttackSpec, Suite, format_eps, parse_eps
from apd_bench.data.catalog import is_folder
from apd_bench.defences.parse import ADAPTIVE, parse_defence
from apd_bench.methods.catalog import is_trained
from apd_bench.records.record import json_form
from apd_bench.suites import merge_tables, suite_from

RECIPE_SECTIONS = ("learner", "objective", "inner_attack", "training")
_SETTABLE = (
    "norm", "knowledge", "split", "transfer_source", "task", "train_dataset", "train_eps", "resize", "test_resize",
    "precision",
)  # fmt: skip
AS_IT_IS = RunOptions()


def split_list(text: str | Iterable[str]) -> list[str]:
    """The items of a list written with commas or spaces.

    Brackets hold together, and quotes inside them: `pgd(steps=9, loss='ce')`; so does the path of an image folder or a
    prompt state that is there: `folder:/my pets (new)`.
    """
    if not isinstance(text, str):
        return [item for part in text for item in split_list(part)]
    items, start = [], 0
    while start < len(text):
        ends = _ends(text, start)
        folders = [end for end in ends if is_folder(text[start:end]) or is_trained(text[start:end])]
        end = folders[-1] if folders else ends[0]
        items.append(text[start:end])
        start = end + 1
    return [item for item in items if item]


def _ends(text: str, start: int) -> list[int]:
    """Where an item that begins at `start` may end: at the separators outside of brackets, and at the end."""
    ends, depth, quote = [], 0, ""
    for place in range(start, len(text)):
        sign = text[place]
        if quote:
            quote = "" if sign == quote and text[place - 1] != "\\" else quote
        elif sign in "'\"" and depth:
            quote = sign
        elif depth <= 0 and (sign == "," or sign.isspace()):
            ends.append(place)
        depth += 0 if quote else (sign in "([{") - (sign in ")]}")
    return [*ends, len(text)]


def resolve(suite: Suite, options: RunOptions = AS_IT_IS) -> Suite:
    """The suite that is really run: the options laid over it, every name canonical, groups and wildcards expanded.

    Raises UnknownName or UsageError for whatever does not exist.
    """
    DATASETS.refresh()
    # A setting of one method counts above one for all, which counts above the suite's own.
    for text in sorted(options.settings, key=lambda text: text.partition(".")[0].strip() not in RECIPE_SECTIONS):
        key, equals, value = text.partition("=")
        path = tuple(part for part in key.strip().split(".") if part)
        if not equals or not path:
            raise UsageError(f"--set '{text}' does not read as KEY=VALUE.", hint="Write --set training.epochs=5.")
        suite = _set(suite, path, _literal(value.strip()), text)
    lists = ("backbones", "methods", "datasets", "attacks", "defences", "eps")
    written = {name: getattr(options, name) for name in lists}
    asked = {name: None if items is None else split_list(items) for name, items in written.items()}
    datasets = _datasets(list(suite.datasets), None)
    if asked["datasets"] is not None:
        datasets = _datasets(asked["datasets"], datasets)
    eps = suite.eps if asked["eps"] is None else [parse_eps(item, suite.norm) for item in asked["eps"]]
    resolved = suite.with_options(
        backbones=_names(BACKBONES, suite.backbones, asked["backbones"]),
        methods=_methods(suite, asked["methods"]),
        reference=tuple(METHODS.canonical(name) for name in suite.reference) if not options.no_reference else (),
        datasets=datasets,
        attacks=_calls(suite.attacks, asked["attacks"], parse_attack, ATTACKS),
        defences=_calls(suite.defences, asked["defences"], parse_defence, DEFENCES),
        eps=tuple(dict.fromkeys(eps)),
        seeds=suite.seeds if options.seeds is None else tuple(dict.fromkeys(options.seeds)),
        shots=suite.shots if options.shots is None else tuple(dict.fromkeys(options.shots)),
        limit=suite.limit if options.limit is None else options.limit or None,
        train_dataset=DATASETS.canonical(suite.train_dataset) if suite.train_dataset else None,
        recipes={METHODS.canonical(name): table for name, table in suite.recipes.items()},
        rules=tuple(
            {**rule, "datasets": tuple(map(DATASETS.canonical, rule["datasets"]))} if "datasets" in rule else rule
            for rule in suite.rules
        ),
    )
    if resolved.defences and not any(parse_attack(text).name == ADAPTIVE for text in resolved.attacks):
        resolved = resolved.with_options(attacks=(*resolved.attacks, ADAPTIVE))
    for name in ("backbones", "datasets", "attacks", "eps", "seeds", "shots", "methods"):
        if not getattr(resolved, name) and not (name == "methods" and resolved.reference):
            raise UsageError(
                f"The suite '{suite.name}' names no {name}, and none were asked for.", hint=f"Add --{name} ..."
            )
    return resolved


def _names(registry: Registry, own: tuple[str, ...], asked: list[str] | None) -> tuple[str, ...]:
    if asked is None:
        return tuple(registry.canonical(name) for name in own)
    universe = [registry.canonical(name) for name in own] if "all" in asked else None
    return tuple(registry.select(asked, universe=universe))


def _methods(suite: Suite, asked: list[str] | None) -> tuple[str, ...]:
    if asked is None:
        return tuple(METHODS.select(list(suite.methods))) if suite.methods else ()
    only_less = all(name.startswith("!") for name in asked)
    own = [METHODS.canonical(name) for name in suite.methods] if only_less else None
    return tuple(METHODS.select(asked, universe=own))


def _datasets(patterns: list[str], universe: tuple[str, ...] | None) -> tuple[str, ...]:
    """Names, wildcards and groups (`embedded`, `benchmark`) as canonical names; `all` is the suite's own list."""
    groups: dict[str, list[str]] = {}
    for entry in DATASETS:
        groups.setdefault(entry.group, []).append(entry.name)
    expanded: list[str] = []
    for pattern in patterns:
        sign, name = ("!", pattern[1:]) if pattern.startswith("!") else ("", pattern)
        expanded += [f"{sign}{member}" for member in groups[name]] if name in groups else [pattern]
    if not expanded:
        return ()
    try:
        return tuple(DATASETS.select(expanded, universe=None if universe is None else list(universe)))
    except UnknownName:
        if universe is None or not any(map(_wild, patterns)):
            raise
        return tuple(DATASETS.select(expanded))  # a wildcard that matches none of the suite's own sets


def _wild(pattern: str) -> bool:
    return any(sign in pattern for sign in "*?[")


def _calls(
    of_suite: tuple[str, ...], asked: list[str] | None, parse: Callable[[str], AttackSpec], registry: Registry
) -> tuple[str, ...]:
    """Attacks (or defences) as they are written, each with canonical name and options: `pgd`, `pgd(steps=100)`."""
    own = [parse(text).label for text in of_suite]
    if asked is None:
        return tuple(dict.fromkeys(own))
    chosen: list[str] = []
    dropped: set[str] = set()
    for pattern in asked:
        negative, text = pattern.startswith("!"), pattern.removeprefix("!")
        if text == "all":
            found = own
        elif _wild(text) and "(" not in text:
            found = [parse(name).label for name in registry.select([text])]
        else:
            found = [parse(text).label]
        if negative:
            dropped.update(found)
        else:
            chosen += found
    return tuple(name for name in dict.fromkeys(chosen or own) if name not in dropped)


def _set(suite: Suite, path: tuple[str, ...], value: Any, text: str) -> Suite:
    if path[0] in _SETTABLE and len(path) == 1:
        return suite_from({path[0]: value}, base=suite).with_options(name=suite.name)
    if path[0] in RECIPE_SECTIONS and len(path) > 1:
        recipes = {name: _without(table, path) for name, table in suite.recipes.items()}
        return suite.with_options(recipe=merge_tables(suite.recipe, _nested(path, value)), recipes=recipes)
    if path[0] == "recipes":
        path = path[1:]
    for cut in range(len(path) - 2, 0, -1):  # the longest method name first: `apd.rslad` before `apd`
        name = ".".join(path[:cut])
        known = {*METHODS.names(), *METHODS.aliases()}
        if name.lower() in known and path[cut] in RECIPE_SECTIONS:
            table = {METHODS.canonical(name): _nested(path[cut:], value)}
            recipes = {METHODS.canonical(key): item for key, item in suite.recipes.items()}
            return suite.with_options(recipes=merge_tables(recipes, table))
    raise unknown_name(
        "setting",
        text.partition("=")[0],
        [*_SETTABLE, *(f"{section}.OPTION" for section in RECIPE_SECTIONS), "METHOD.SECTION.OPTION"],
    )


def _without(table: Mapping[str, Any], path: tuple[str, ...]) -> Mapping[str, Any]:
    """`table` without the value at `path`, if it has one there."""
    if len(path) == 1:
        return {key: value for key, value in table.items() if key != path[0]}
    inner = table.get(path[0])
    return {**table, path[0]: _without(inner, path[1:])} if isinstance(inner, Mapping) else dict(table)


def _nested(path: tuple[str, ...], value: Any) -> dict[str, Any]:
    table: Any = value
    for part in reversed(path):
        table = {part: table}
    return dict(table)


def _literal(text: str) -> Any:
    """A number, boolean, list or quoted text as Python or TOML writes it; anything else is text."""
    if text in ("true", "false"):
        return text == "true"
    if re.fullmatch(r"\d+/\d+", text):
        return text
    try:
        return ast.literal_eval(text)
    except (SyntaxError, ValueError, TypeError, RecursionError, MemoryError):
        return text


def describe(suite: Suite) -> Mapping[str, Any]:
    """The resolved suite as a table that `suite_from` reads back, without what no cell depends on."""
    table = {key: value for key, value in json_form(suite).items() if value not in (None, "", [], {})}
    table.pop("options", None)
    table["eps"] = [format_eps(item, suite.norm) for item in suite.eps]
    if suite.train_eps is not None:
        table["train_eps"] = format_eps(suite.train_eps)
    return table
