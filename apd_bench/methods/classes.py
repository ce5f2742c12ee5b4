"""Learners and objectives by name: those of this package, and the classes of plug-ins. Imports no torch."""

import hashlib
import marshal
from types import FunctionType
from typing import TypeVar

from apd_bench.backbones.configs import ALL_OFFERS
from apd_bench.core.errors import UsageError, unknown_name
from apd_bench.core.specs import MethodRecipe
from apd_bench.core.targets import code_digest, resolve
from apd_bench.prompts.catalog import LEARNERS, NEEDS

OBJECTIVES: dict[str, str] = {
    "clean": "apd_bench.methods.clean:CleanCrossEntropy",
    "adversarial": "apd_bench.methods.adversarial:AdversarialCrossEntropy",
    "mixed": "apd_bench.methods.ce_mix:MixedCrossEntropy",
    "distillation": "apd_bench.methods.apd:Distillation",
    "consistency": "apd_bench.methods.fap:ConsistencyWithDifference",
    "prompt_attack": "apd_bench.methods.advtp:PromptAttack",
    "feature_bank": "apd_bench.methods.advpt:FeatureBank",
}
TARGETS = {"learner": LEARNERS, "objective": OBJECTIVES}
_CLASSES: dict[tuple[str, str], type] = {}  # of plug-ins, by name and digest: what `define` was called with
T = TypeVar("T")


def load_class(section: str, recipe: MethodRecipe, kind: type[T]) -> type[T]:
    """The class behind a recipe's "learner" or "objective", a subclass of `kind`.

    It is one of this package, or one that a plug-in of this process defines with the digest of the recipe. Nothing is
    imported because a recipe says so: raises UsageError that says what to give.
    """
    name = str(getattr(recipe, section))
    target = TARGETS[section].get(name)
    found = resolve(target, type) if target else _of_plugin(name, recipe.digest)
    if found is None:
        raise _absent(section, name, recipe)
    if not issubclass(found, kind):
        raise UsageError(f"The {section} '{name}' of '{recipe.name}' is no {kind.__name__}.")
    return found


def needs_of(learner: str, digest: str | None) -> tuple[str, ...]:
    """What a backbone has to offer for a learner: of this package from its table, of a plug-in from its class."""
    if learner in NEEDS:
        return NEEDS[learner]
    return tuple(sorted(getattr(_of_plugin(learner, digest), "needs", ())))


def name_of(section: str, given: type | str) -> tuple[str, str | None]:
    """The name of a class in recipes and the digest of its code; a class of this package has its registered name.

    A class from outside can be loaded by both from then on. Raises UsageError where its name is one of this package, or
    it needs what no backbone offers.
    """
    if isinstance(given, str):
        return given, None
    module, name = given.__module__, given.__qualname__
    for known, target in TARGETS[section].items():
        if target == f"{module}:{name}":
            return known, None
        if known == name:
            raise UsageError(
                f"The class '{name}' of {module} has the name of a {section} of this package, {target}.",
                hint="Rename the class.",
            )
    for need in getattr(given, "needs", ()):
        if need not in ALL_OFFERS:
            raise unknown_name(f"need of {name}", need, ALL_OFFERS)
    if (digest := code_digest(module)) is None:  # typed into a session, or unregistered in this package
        code = [marshal.dumps(value.__code__) for value in vars(given).values() if isinstance(value, FunctionType)]
        digest = hashlib.sha256(b"".join(code)).hexdigest()[:16]
    _CLASSES[name, digest] = given
    return name, digest


def _of_plugin(name: str, digest: str | None) -> type | None:
    marks = (digest or "").split("+")
    return next((_CLASSES[name, mark] for mark in marks if (name, mark) in _CLASSES), None)


def _absent(section: str, name: str, recipe: MethodRecipe) -> UsageError:
    if recipe.digest is None:
        return unknown_name(section if section == "objective" else "prompt learner", name, TARGETS[section])
    others = ", ".join(mark for known, mark in _CLASSES if known == name)
    return UsageError(
        f"The {section} '{name}' of '{recipe.name}' is code of its own, of digest {recipe.digest}"
        + (f"; the one that is here has {others}." if others else ", which is not here."),
        hint="Give the file that defines it: --methods FILE.py:NAME (or install the plug-in).",
    )
