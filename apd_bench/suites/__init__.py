"""Suites: declared grids as TOML files whose keys are the fields of `specs.Suite`.

`eps` and `train_eps` are written as text ("2/255"). `[recipe.SECTION]` overrides every method's recipe,
`[recipes.METHOD.SECTION]` one method's, `[sources]` says where numbers come from. `[[rules]]` holds for some fits only:
`datasets = ["imagenet"]` and/or `shots = [1]`, and `[rules.recipe.SECTION]`. `extends = "NAME"` starts from another
suite. `[options]` holds defaults of the command line's other options (`jobs = 2`, `batch_size = 32`): a variable
APD_BENCH_<OPTION> wins over them, and the command line over both. The files beside this one are known by name, any
other file by its path. The resolved suite that a run leaves in `results/runs/` is the same table as JSON, without
options, and is read back in the same way.
"""

import json
from collections.abc import Mapping
from dataclasses import fields
from pathlib import Path
from typing import Any

from apd_bench.core.bounds import parse_json
from apd_bench.core.errors import CorruptFile, MissingPrerequisite, UsageError, unknown_name
from apd_bench.core.files import read_text, typed_file
from apd_bench.core.options import check_suite_options
from apd_bench.core.package_data import package_path
from apd_bench.core.specs import KNOWLEDGE, NORMS, PRECISIONS, RESIZES, SPLITS, TASKS, Suite, one_of, parse_eps
from apd_bench.core.targets import names_code
from apd_bench.core.toml import tomllib

DEFAULT_SUITE = "embedded"
_FIELDS = {item.name for item in fields(Suite)}
_LISTS = dict.fromkeys(("backbones", "methods", "reference", "datasets", "attacks", "defences"), str) | {
    "seeds": int, "shots": int,
}  # fmt: skip
_TABLES = {"recipe", "recipes", "sources", "options"}
_RULE = {"datasets", "shots", "recipe"}
_CHOICES = {
    "norm": ("Norm", NORMS),
    "knowledge": ("Attacker knowledge", KNOWLEDGE),
    "split": ("Split", SPLITS),
    "task": ("Task", TASKS),
    "resize": ("Resize", RESIZES),
    "test_resize": ("Resize", RESIZES),
    "precision": ("Precision", PRECISIONS),
}


def suite_names() -> list[str]:
    """The names of the suites inside the package, the default first."""
    names = sorted(path.stem for path in package_path("suites").glob("*.toml"))
    return sorted(names, key=lambda name: name != DEFAULT_SUITE)


def load_suite(name: str) -> Suite:
    """The suite called `name`, or the one in the TOML file at the path `name`.

    Raises UnknownName for neither, CorruptFile for a file that does not parse, UsageError for what it says.
    """
    return _load(name, ())


def _load(name: str, trail: tuple[str, ...]) -> Suite:
    path = _find(name)
    if str(path) in trail:
        raise UsageError(f"Suite '{name}' extends itself: {' -> '.join((*trail, str(path)))}.")
    try:
        text = read_text(path)
        data = parse_json(text) if path.suffix == ".json" else tomllib.loads(text)
    except OSError as error:
        raise MissingPrerequisite(f"Cannot read the suite {path}: {error.strerror}.") from error
    except (ValueError, RecursionError) as error:  # of either format, or not text at all
        raise CorruptFile(f"The suite {path} cannot be parsed: {error}.") from error
    if not isinstance(data, dict):
        raise CorruptFile(f"The suite {path} holds no table: it begins with {text.lstrip()[:20]!r}.")
    if names_code(
        json.dumps({key: data[key] for key in data if key not in ("title", "notes", "sources")}, default=str)
    ):
        raise UsageError(
            f"The suite {path} names a Python file, which only the command line and Python may.",
            hint="Give it there: --methods FILE.py:NAME.",
        )
    parent = data.pop("extends", None)
    if not isinstance(parent, str | None):
        raise UsageError(f"Suite key 'extends' is the name of one suite: {parent!r:.60}.")
    base = None
    if parent is not None:
        sibling = typed_file(str(path.parent), parent) if parent.endswith(".toml") else None
        base = _load(str(sibling or parent), (*trail, str(path)))
    return suite_from(data, default_name=path.stem, base=base)


def suite_from(data: Mapping[str, Any], *, default_name: str = "custom", base: Suite | None = None) -> Suite:
    """The suite behind a table as it stands in a TOML file; raises UsageError or UnknownName, naming the key."""
    values: dict[str, Any] = {"name": default_name}
    norm = data.get("norm", base.norm if base else "Linf")
    for key, value in data.items():
        if key not in _FIELDS:
            raise unknown_name("suite key", key, _FIELDS, command="apd-bench list suites")
        values[key] = _value(key, value, norm)
    if base is None:
        return Suite(**values)
    for key in _TABLES & values.keys():
        values[key] = merge_tables(getattr(base, key), values[key])
    return base.with_options(**values)


def merge_tables(below: Mapping[str, Any], above: Mapping[str, Any]) -> dict[str, Any]:
    """Nested tables laid over one another; where both have a value, `above` counts."""
    merged = dict(below)
    for key, value in above.items():
        old = merged.get(key)
        merged[key] = merge_tables(old, value) if isinstance(old, Mapping) and isinstance(value, Mapping) else value
    return merged


def _value(key: str, value: Any, norm: str) -> Any:
    """The value of a suite's key, by the kind of the key."""
    items = value if isinstance(value, list) else [value]
    if key == "eps":
        return tuple(parse_eps(item, norm) for item in items)
    if key in _LISTS:
        if any(type(item) is not _LISTS[key] for item in items):
            kind = "whole numbers" if _LISTS[key] is int else "names"
            raise UsageError(f"Suite key '{key}' is a list of {kind}: {value!r}.")
        return tuple(items)
    if key in _TABLES:
        if not isinstance(value, Mapping) or (
            key == "recipes" and not all(isinstance(table, Mapping) for table in value.values())
        ):
            raise UsageError(f"Suite key '{key}' is a table: write [{key}.SECTION].")
        if key == "options":
            check_suite_options(value)
        return dict(value)
    if key == "rules":
        return tuple(_rule(item, norm) for item in items)
    if key in _CHOICES:
        return one_of(_CHOICES[key][0], value, _CHOICES[key][1])
    if key == "train_eps":
        return parse_eps(value)  # training attacks within Linf balls alone
    if key == "limit":
        if type(value) is not int or value < 1:
            raise UsageError(f"Suite key 'limit' is a number of samples of 1 or more: {value!r}.")
        return value
    if not isinstance(value, str):
        raise UsageError(f"Suite key '{key}' is text: {value!r}.")
    return value


def _rule(table: Any, norm: str) -> dict[str, Any]:
    if not isinstance(table, Mapping) or not isinstance(table.get("recipe"), Mapping) or not table["recipe"]:
        raise UsageError(f"A rule of a suite is a table with a recipe: {table!r}.", hint="Write [[rules]].")
    for key in table:
        if key not in _RULE:
            raise unknown_name("key of a rule", key, _RULE)
    if len(table) == 1:
        raise UsageError("A rule of a suite names neither datasets nor shots.", hint="For all fits write [recipe...].")
    return {key: _value(key, value, norm) for key, value in table.items()}


def _find(name: str) -> Path:
    inside = typed_file(str(package_path("suites")), f"{name}.toml") if "/" not in name else None
    path = inside or typed_file(name)
    if path is not None:
        return path
    if name.endswith((".toml", ".json")) or "/" in name:
        raise MissingPrerequisite(f"There is no suite file '{name}'.", hint="See: apd-bench list suites")
    raise unknown_name("suite", name, suite_names(), command="apd-bench list suites")
