"""An ordered suite in which only survivors go on: as strong as AutoAttack standard for a fraction of its passes.

Measurements show that it is the schedule of targets and not the number of steps that buys strength: auto-PGD with 20
steps and 9 targets breaks what AutoAttack breaks. A cheap untargeted run and a margin run before it clear the field.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

from torch import Tensor

from apd_bench.attacks.apgd import near, targeted, untargeted
from apd_bench.attacks.catalog import SUITE
from apd_bench.attacks.checkpoint import Checkpoint, Progress
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.result import AttackResult, OnStep
from apd_bench.attacks.search import Search, attacking
from apd_bench.specs import ThreatModel

MEMBERS: dict[str, Callable[[Search, int, int], None]] = {
    "apgd-ce": lambda search, steps, _: untargeted(search, "stable-ce", steps),
    "apgd-margin": lambda search, steps, _: untargeted(search, "margin", steps),
    "apgd-t": lambda search, steps, targets: targeted(search, targets, steps),
    "apgd-near": lambda search, steps, targets: near(search, targets, steps),
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
    steps: int = 20,
    targets: int = 9,
    order: Sequence[str] = SUITE,
    checkpoint: Path | None = None,
) -> AttackResult:
    """The members in their order, each with `steps` steps; `broken_NAME` as for AutoAttack.

    By default auto-PGD on the stable cross-entropy, then on the margin, then on targeted DLR. With a folder in
    `checkpoint`, a killed attack resumes after its last finished member.
    """
    with attacking(classifier, pixels, labels, threat, sample_ids, seed, on_step) as search:
        state = Checkpoint(checkpoint, search, {"members": list(order), "steps": steps, "targets": targets})
        for index in range(state.load().member, len(order)):
            name, search.last = order[index], index == len(order) - 1
            MEMBERS[name](search, steps, targets)
            search.columns[f"broken_{name}"] = search.broken.clone()
            state.save(Progress(index + 1))
        state.remove()
        search.effective |= {"members": list(order)}
    return search.result()
