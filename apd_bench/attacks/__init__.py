"""Attacks: an attack is a function `attack(search, **options)` written against `Search`, and `run` calls it.

`catalog` and `parse` know names, options and defaults without torch; `search`, `meter`, `projections` and `losses` are
shared; every other module is one attack or one family; `audit` and `diagnostics` judge what an attack hands back.
"""

from __future__ import annotations

from collections.abc import Sequence
from inspect import signature
from pathlib import Path
from types import FunctionType
from typing import TYPE_CHECKING

from apd_bench.attacks.parse import all_options, entry_within, parse_attack
from apd_bench.core.errors import UsageError
from apd_bench.core.specs import AttackSpec, ThreatModel
from apd_bench.core.targets import resolve

if TYPE_CHECKING:
    from torch import Tensor

    from apd_bench.attacks.meter import Meter, Model
    from apd_bench.attacks.search import AttackResult


def run(
    attack: AttackSpec | str,
    model: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    ids: Sequence[str],
    seed: int = 0,
    *,
    checkpoint: Path | None = None,
) -> AttackResult:
    """What `attack`, a spec or text such as "pgd(steps=100)", finds within `threat` around `pixels` [B, 3, H, W].

    `model` maps pixels in [0, 1] to logits [B, K], bare or in a Meter; `labels` [B] are whole numbers; the random
    points of a sample are drawn from `seed` and its name in `ids`. An attack of several members that was killed goes
    on where it was when `checkpoint` is the same folder. Raises UsageError for input that no attack can judge
    and a function that does not take its options, MissingPrerequisite for a library that is not installed.
    """
    from apd_bench.attacks.search import attacking

    spec = parse_attack(attack) if isinstance(attack, str) else attack
    target, options = entry_within(spec, threat).target, all_options(spec)
    function = resolve(target, FunctionType)
    try:
        signature(function).bind(None, **options)
    except TypeError as error:
        written = ", ".join(("search", "*", *options)) if options else "search"
        raise UsageError(
            f"'{target}' does not fit {spec.name}: {error}.", hint=f"Write it with ({written})."
        ) from error
    with attacking(model, pixels, labels, threat, ids, seed, checkpoint) as search:
        function(search, **options)
    return search.result()
