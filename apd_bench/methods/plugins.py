"""Methods from outside the package: an entry point, `path/to/file.py:NAME`, or a plain object. Imports no torch."""

from __future__ import annotations

import hashlib
import marshal
from collections.abc import Iterable, Mapping
from types import FunctionType
from typing import Any, NoReturn, TypeVar

from apd_bench.backbones.needs import ALL_OFFERS
from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.core.specs import MethodRecipe
from apd_bench.core.targets import code_digest, resolve
from apd_bench.methods.catalog import OBJECTIVES
from apd_bench.methods.entry import MethodEntry
from apd_bench.prompts.catalog import LEARNERS

NAMES = {"learner": LEARNERS, "objective": OBJECTIVES}
_CLASSES: dict[tuple[str, str], type] = {}  # of plug-ins, by name and digest: what `define` was called with
T = TypeVar("T")


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
    `needs` adds to what the learner's class says that it needs of a backbone.
    `tables` are the sections of a recipe: `training={"epochs": 5}`, `objective_options={...}`, `learner_options={...}`,
    `inner_attack={...}`, `sources={...}`. Raises UsageError for a class with the name of one of this package.
    """
    changes: dict[str, Any] = {}
    digests: list[str] = []
    for section, given in (("learner", learner), ("objective", objective)):
        options = dict(tables.pop(f"{section}_options", {}))
        if given is not None:
            kind, digest = _named(section, given)
            options = {"kind": kind} | options
            digests += [digest] if digest else []
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
    required = {*((needs,) if isinstance(needs, str) else needs), *getattr(learner, "needs", ())}
    for need in sorted(required - {*ALL_OFFERS}):
        raise unknown_name(f"need of '{name}'", need, ALL_OFFERS)
    if required:
        changes["needs"] = tuple(sorted(required))
    return MethodEntry(
        name=name,
        aliases=tuple(aliases),
        title=title or name,
        paper=paper,
        base=base,
        changes=changes,
        digest="+".join(dict.fromkeys(digests)) or None,
    )


def load_class(section: str, recipe: MethodRecipe, kind: type[T]) -> type[T]:
    """The class behind a recipe's "learner" or "objective", a subclass of `kind`.

    It is one of this package, or one that a plug-in of this process defines with the digest of the recipe. Nothing is
    imported because a recipe says so: raises UsageError that says what to give.
    """
    name = str(getattr(recipe, section))
    target = NAMES[section].get(name)
    marks = (recipe.digest or "").split("+")
    found = resolve(target, type) if target else next((_CLASSES[name, m] for m in marks if (name, m) in _CLASSES), None)
    if found is None:
        _refuse(section, name, recipe)
    if not issubclass(found, kind):
        raise UsageError(f"The {section} '{name}' of '{recipe.name}' is no {kind.__name__}.")
    return found


def _refuse(section: str, name: str, recipe: MethodRecipe) -> NoReturn:
    if recipe.digest is None:
        raise unknown_name(section if section == "objective" else "prompt learner", name, NAMES[section])
    others = ", ".join(mark for known, mark in _CLASSES if known == name)
    raise UsageError(
        f"The {section} '{name}' of '{recipe.name}' is code of its own, of digest {recipe.digest}"
        + (f"; the one that is here has {others}." if others else ", which is not here."),
        hint="Give the file that defines it: --methods FILE.py:NAME (or install the plug-in).",
    )


def _named(section: str, given: type | str) -> tuple[str, str | None]:
    """The name of a class in recipes and the digest of its code; a class of this package has its registered name."""
    if isinstance(given, str):
        return given, None
    module, name = given.__module__, given.__qualname__
    builtin = {target: known for known, target in NAMES[section].items()}
    if f"{module}:{name}" in builtin:
        return builtin[f"{module}:{name}"], None
    if name in NAMES[section]:
        raise UsageError(
            f"The class '{name}' of {module} has the name of a {section} of this package, "
            f"{NAMES[section][name]}.", hint="Rename the class."
        )  # fmt: skip
    digest = code_digest(module) or _typed_digest(given)
    _CLASSES[name, digest] = given
    return name, digest


def _typed_digest(given: type) -> str:
    """The digest of a class that was typed into a session, or lies in this package unregistered: of its functions."""
    code = [marshal.dumps(value.__code__) for value in vars(given).values() if isinstance(value, FunctionType)]
    return hashlib.sha256(b"".join(code)).hexdigest()[:16]
