"""An ordered suite in which only survivors go on: as strong as AutoAttack standard for a fraction of its passes.

What a gradient buys, by thousands of verdicts (results/bench): most with auto-PGD from the best point so far towards
the class that is nearest there, in runs of 30 steps and on two losses in turn; shorter runs miss twice as much. Random
starts towards nine classes find most of the rest.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from apd_bench.attacks import apgd
from apd_bench.attacks.apgd import targeted, untargeted
from apd_bench.attacks.catalog import SUITE
from apd_bench.attacks.checkpoint import Checkpoint, Progress
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.result import AttackResult, OnStep
from apd_bench.attacks.search import Search, attacking
from apd_bench.specs import ThreatModel

MEMBERS: dict[str, Callable[[Search, int, int], None]] = {
    "apgd-ce": lambda search, steps, _: untargeted(search, "stable-ce", steps),
    "apgd-margin": lambda search, steps, _: untargeted(search, "margin", steps),
    "apgd-t": lambda search, steps, runs: targeted(search, runs, steps),
    "apgd-near": lambda search, steps, runs: apgd.near(search, runs, steps),
}


def worst(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
    on_step: OnStep | None = None,
    steps: int = 30,
    near: int = 3,
    targets: int = 9,
    order: Sequence[str] = SUITE,
    checkpoint: Path | None = None,
) -> AttackResult:
    """The members in their order; `broken_NAME` as for AutoAttack.

    Each run has `steps` steps; apgd-near has `near` runs, apgd-t one for each of the `targets` strongest wrong classes,
    the others one. With a folder in `checkpoint`, a killed attack resumes after its last finished member.
    """
    with attacking(classifier, pixels, labels, threat, sample_ids, seed, on_step) as search:
        options = {"members": list(order), "steps": steps, "near": near, "targets": targets}
        state = Checkpoint(checkpoint, search, options)
        for index in range(state.load().member, len(order)):
            name, search.last = order[index], index == len(order) - 1
            MEMBERS[name](search, steps, near if name == "apgd-near" else targets)
            search.columns[f"broken_{name}"] = search.broken.clone()
            state.save(Progress(index + 1))
        state.remove()
        search.effective |= {"members": list(order)}
    return search.result()
