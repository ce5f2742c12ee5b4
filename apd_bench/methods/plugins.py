"""Methods from outside the package: an entry point, `path/to/file.py:NAME`, or a plain object. Imports no torch."""

from __future__ import annotations

import hashlib
import importlib.util
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from types import ModuleType
from typing import Any

from apd_bench.errors import UsageError, unknown_name
from apd_bench.methods.catalog import MethodEntry
from apd_bench.registry import resolve_target
from apd_bench.specs import MethodRecipe

_MODULE = "apd_bench_plugin_"
_LIVE: dict[str, type] = {}  # classes typed into a session: they have no file that another process could import


def define(
    name: str,
    *,
    base: str | None = None,
    learner: type | str | None = None,
    objective: type | str | None = None,
    aliases: Iterable[str] = (),
    title: str = "",
    paper: str = "",
    needs: Iterable[str] = (),
    **tables: Mapping[str, Any],
) -> MethodEntry:
    """A method of your own: a learner and an objective (classes or names), and what its recipe says.

    `base` is a registered method whose recipe is the starting point, so that only the difference is written down.
    `tables` are the sections of a recipe: `training={"epochs": 5}`, `objective_options={...}`, `learner_options={...}`,
    `inner_attack={...}`, `sources={...}`.
    """
    changes: dict[str, Any] = {}
    code: str | None = None
    digests: list[str] = []
    for section, given in (("learner", learner), ("objective", objective)):
        options = dict(tables.pop(f"{section}_options", {}))
        if given is not None:
            target, file = _target(given)
            options = {"kind": target} | options
            code = _one_file(name, code, file)
            digests += _source_digest(given)
        if options:
            changes[section] = options
    for section in ("inner_attack", "training", "sources"):
        if section in tables:
            changes[section] = dict(tables.pop(section))
    if tables:
        raise unknown_name(
            "recipe section",
            next(iter(tables)),
            ("learner_options", "objective_options", "inner_attack", "training", "sources"),
        )
    if tuple(needs):
        changes["needs"] = tuple(needs)
    return MethodEntry(
        name=name,
        aliases=tuple(aliases),
        title=title or name,
        paper=paper,
        base=base,
        changes=changes,
        code=code,
        digest="+".join(dict.fromkeys(digests)) or None,
    )


def load_class(target: str, recipe: MethodRecipe) -> Any:
    """The class behind a recipe's learner or objective: "module:Class", or "file:Class" in the recipe's own file."""
    place, _, name = target.partition(":")
    if place == "file":
        if recipe.code is None:
            raise UsageError(f"The recipe of '{recipe.name}' names '{target}' but no file.")
        path = Path(recipe.code)
        if recipe.digest is not None and path.is_file() and _digest(path) != recipe.digest:
            raise UsageError(
                f"'{path}' has changed since '{recipe.name}' was planned.", hint="Run the same command again."
            )
        return _attribute(import_file(path), name, path)
    if place == "session":
        if name not in _LIVE:
            raise UsageError(
                f"'{name}' of method '{recipe.name}' exists only in the session that defined it.",
                hint="Put it in a file and run with --method FILE.py:NAME, or use --jobs 1.",
            )
        return _LIVE[name]
    return resolve_target(target)


def method_in_file(file: str, name: str) -> MethodEntry:
    """The method called `name` in a Python file; raises UsageError when there is none."""
    path = Path(file).expanduser()
    value = _attribute(import_file(path), name, path)
    if not isinstance(value, MethodEntry):
        raise UsageError(
            f"'{name}' in '{file}' is a {type(value).__name__}, not a method.",
            hint=f"Write {name} = apd_bench.methods.define('my_method', base='advvlp', objective=MyObjective).",
        )
    return value


def import_file(path: Path) -> ModuleType:
    """The module in a Python file, imported once per content; raises UsageError when it cannot be."""
    path = path.expanduser().resolve()
    if not path.is_file():
        raise UsageError(f"There is no file '{path}'.", hint="Give --method path/to/file.py:NAME.")
    module_name = f"{_MODULE}{_digest(path)}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    if module_name in sys.modules:
        return sys.modules[module_name]
    spec = importlib.util.spec_from_file_location(module_name, path)
    if spec is None or spec.loader is None:
        raise UsageError(f"'{path}' cannot be imported as Python.")
    module = importlib.util.module_from_spec(spec)
    sys.modules[module_name] = module
    try:
        spec.loader.exec_module(module)
    except Exception as error:
        del sys.modules[module_name]
        raise UsageError(f"Importing '{path}' failed: {type(error).__name__}: {error}.") from error
    return module


def _attribute(module: ModuleType, name: str, path: Path) -> Any:
    if not hasattr(module, name):
        public = [key for key in vars(module) if not key.startswith("_")]
        raise unknown_name(f"name in {path.name}", name, public)
    return getattr(module, name)


def _target(given: type | str) -> tuple[str, str | None]:
    """How a class is named in a recipe, and the file it must be read from (None for an importable module)."""
    if isinstance(given, str):
        return given, None
    module = sys.modules[given.__module__]
    if given.__module__ != "__main__" and not given.__module__.startswith(_MODULE):
        return f"{given.__module__}:{given.__qualname__}", None
    file = getattr(module, "__file__", None)
    if file is None or getattr(module, given.__qualname__, None) is not given:
        _LIVE[given.__qualname__] = given
        return f"session:{given.__qualname__}", None
    return f"file:{given.__qualname__}", str(Path(file).resolve())


def _source_digest(given: type | str) -> list[str]:
    """The digest of the file in which a class from outside this package is written, if it has one."""
    if isinstance(given, str) or given.__module__.startswith("apd_bench."):
        return []
    file = getattr(sys.modules[given.__module__], "__file__", None)
    return [_digest(Path(file))] if file is not None and Path(file).is_file() else []


def _one_file(method: str, known: str | None, file: str | None) -> str | None:
    if known is not None and file is not None and known != file:
        raise UsageError(f"Learner and objective of '{method}' lie in two files.", hint="Put them in one.")
    return known or file


def _digest(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()[:16]
