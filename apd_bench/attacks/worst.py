"""An ordered suite in which only survivors go on: as strong as AutoAttack standard for a fraction of its passes.

What a gradient buys, by thousands of verdicts (results/bench): most with auto-PGD from the best point so far towards
the class that is nearest there, in runs of 30 steps and on two losses in turn; shorter runs miss twice as much. What
these leave and AutoAttack breaks is close to the boundary by then, so those that are close get more, and longer, runs.
"""

from collections.abc import Sequence

from apd_bench.attacks import apgd
from apd_bench.attacks.checkpoint import Checkpoint
from apd_bench.attacks.search import Search


def worst(search: Search, *, steps: int, near: int, targets: int, close: float, order: Sequence[str]) -> None:
    """The members in their order; the columns `broken_NAME` [B] say who was broken once NAME had run.

    Each run has `steps` steps; apgd-near has `near` runs, apgd-t one for each of the `targets` strongest wrong classes,
    the others one. apgd-close is for those whose best margin is at most `close` (a share) of the clean one.
    """
    members = {
        "apgd-ce": lambda: apgd.untargeted(search, "stable-ce", steps),
        "apgd-margin": lambda: apgd.untargeted(search, "margin", steps),
        "apgd-t": lambda: apgd.apgd_targeted(search, steps=steps, targets=targets),
        "apgd-near": lambda: apgd.near(search, near, steps),
        "apgd-close": lambda: apgd.close(search, targets, steps, close),
    }
    options = {"steps": steps, "near": near, "targets": targets, "close": close}
    for name in Checkpoint(search, order, options).remaining():
        members[name]()
    search.effective |= {"members": list(order)}
