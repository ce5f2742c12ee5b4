"""Projected gradient descent (Madry et al., ICLR 2018), and with it CW-Linf (margin loss) and TPGD (KL)."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor

from apd_bench.attacks.losses import LOSSES, kl
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.result import AttackResult
from apd_bench.attacks.search import ascend, attacking
from apd_bench.specs import ThreatModel


def pgd(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
    steps: int = 40,
    step: float = 0.25,
    schedule: str = "cosine",
    restarts: int = 1,
    start: str = "uniform",
    loss: str = "stable-ce",
) -> AttackResult:
    """The points of largest margin on the ascent of `loss`; `step` is the (first) step length in units of eps.

    `schedule` "cosine" lets the step fall to a tenth, "constant" keeps it. Each restart sees the survivors only.
    """
    with attacking(classifier, pixels, labels, threat, sample_ids, seed) as search:
        objective = LOSSES[loss]
        for restart in range(restarts):
            for rows in search.batches():
                x = search.random(rows, "pgd", restart) if start == "uniform" or restart else search.region.x0[rows]
                ascend(
                    search,
                    rows,
                    x,
                    lambda z, rows: objective(z, search.labels[rows]),
                    lengths(steps, step * threat.eps, schedule),
                )
    return search.result()


def tpgd(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
    steps: int = 100,
    step: float = 0.25,
    schedule: str = "constant",
    restarts: int = 1,
) -> AttackResult:
    """PGD on KL(clean || adversarial), the inner attack of TRADES (Zhang et al., ICML 2019, eq. 5)."""
    with attacking(classifier, pixels, labels, threat, sample_ids, seed) as search:
        for restart in range(restarts):
            for rows in search.batches():
                ascend(
                    search,
                    rows,
                    search.random(rows, "tpgd", restart),
                    lambda z, rows: kl(z, search.logits[rows]),
                    lengths(steps, step * threat.eps, schedule),
                )
    return search.result()


def lengths(steps: int, first: float, schedule: str) -> list[float]:
    """Step lengths in pixel units: all `first`, or falling from `first` to a tenth of it along a cosine."""
    if schedule == "constant" or steps == 1:
        return [first] * steps
    return [first * (0.1 + 0.45 * (1 + math.cos(math.pi * i / (steps - 1)))) for i in range(steps)]
