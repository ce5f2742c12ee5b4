"""An ordered suite in which only survivors go on: as strong as AutoAttack standard for a fraction of its passes.

What a gradient buys, by thousands of verdicts (results/bench): most with auto-PGD from the best point so far towards
the class that is nearest there, in runs of 30 steps and on two losses in turn; shorter runs miss twice as much. What
these leave and AutoAttack breaks is close to the boundary by then, so those that are close get more, and longer, runs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from torch import Tensor

from apd_bench.attacks import apgd
from apd_bench.attacks.catalog import SUITE
from apd_bench.attacks.checkpoint import Checkpoint, Progress
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.result import AttackResult
from apd_bench.attacks.search import Search, attacking
from apd_bench.specs import ThreatModel


@dataclass(frozen=True)
class Sizes:
    """Steps of a run, runs of apgd-near, target classes, and how close is close (a share of the clean margin)."""

    steps: int
    near: int
    targets: int
    close: float


MEMBERS: dict[str, Callable[[Search, Sizes], None]] = {
    "apgd-ce": lambda search, sizes: apgd.untargeted(search, "stable-ce", sizes.steps),
    "apgd-margin": lambda search, sizes: apgd.untargeted(search, "margin", sizes.steps),
    "apgd-t": lambda search, sizes: apgd.targeted(search, sizes.targets, sizes.steps),
    "apgd-near": lambda search, sizes: apgd.near(search, sizes.near, sizes.steps),
    "apgd-close": lambda search, sizes: apgd.close(search, sizes.targets, sizes.steps, sizes.close),
}


def worst(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
    steps: int = 30,
    near: int = 3,
    targets: int = 9,
    close: float = 0.2,
    order: Sequence[str] = SUITE,
    checkpoint: Path | None = None,
) -> AttackResult:
    """The members in their order; `broken_NAME` as for AutoAttack.

    Each run has `steps` steps; apgd-near has `near` runs, apgd-t one for each of the `targets` strongest wrong classes,
    the others one. apgd-close is for those whose best margin is at most `close` (a share) of the clean one. With a
    folder in `checkpoint`, a killed attack resumes after its last finished member.
    """
    with attacking(classifier, pixels, labels, threat, sample_ids, seed) as search:
        sizes = Sizes(steps, near, targets, close)
        state = Checkpoint(checkpoint, search, {"members": list(order), **asdict(sizes)})
        for index in range(state.load().member, len(order)):
            name, search.last = order[index], index == len(order) - 1
            MEMBERS[name](search, sizes)
            search.columns[f"broken_{name}"] = search.broken.clone()
            state.save(Progress(index + 1))
        state.remove()
        search.effective |= {"members": list(order)}
    return search.result()
