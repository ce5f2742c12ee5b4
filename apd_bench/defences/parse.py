"""From "ttc(steps=4)" to a DefenceSpec, and from the spec and a model to the defence."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from apd_bench.attacks.parse import canonical_options, options_of
from apd_bench.core.errors import IncompatibleChoice, UsageError
from apd_bench.core.registry import DEFENCES
from apd_bench.core.specs import DefenceSpec, parse_call
from apd_bench.core.targets import resolve
from apd_bench.defences.catalog import DefenceEntry

if TYPE_CHECKING:
    from torch import Tensor

    from apd_bench.attacks.meter import Model
    from apd_bench.defences.base import Defence

ADAPTIVE = "adaptive"  # the attack that knows a defence; all others are made on the model without it, as papers do


def parse_defence(text: str) -> DefenceSpec:
    """The defence that `text` names: canonical name, only the options that differ from the defaults, code version.

    Raises UnknownName for a defence or option that does not exist, UsageError for a value that it cannot take.
    """
    name, options = parse_call(text)
    entry: DefenceEntry = DEFENCES.get(name)
    checked = canonical_options(entry, options)
    return DefenceSpec(name=entry.name, options=checked, version=entry.version, code=entry.code)


def make_defence(
    defence: DefenceSpec | str, model: Model, training: Callable[[Defence], Mapping[str, Tensor]] | None = None
) -> Defence:
    """`model`, a classifier or any callable from pixels in [0,1] to logits, behind the defence.

    `training(defence)`: what a defence that `learns` keeps of the images that the model's prompts were trained on.
    Raises IncompatibleChoice for a model that it cannot adapt.
    """
    from apd_bench.defences.base import Defence

    spec = parse_defence(defence) if isinstance(defence, str) else defence
    entry: DefenceEntry = DEFENCES.get(spec.name)
    kind: Any = resolve(entry.target, type)
    if not issubclass(kind, Defence):
        raise UsageError(f"'{kind.__name__}' of {spec.name} is no Defence.")
    made: Defence = kind(model, **options_of(spec, entry, "--defences"))
    if made.learns:
        if training is None:
            raise IncompatibleChoice(
                f"{spec.name} needs the images that the model's prompts were trained on, which a model alone lacks.",
                hint="In a matrix, and for load_classifier, they are those of the fit.",
            )
        made.known = training(made)
    return made
