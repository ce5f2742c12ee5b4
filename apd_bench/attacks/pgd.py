"""Projected gradient descent (Madry et al., ICLR 2018), and with it CW-Linf (margin loss), TPGD and MultiTargeted."""

import math
from collections.abc import Sequence

from torch import Tensor

from apd_bench.attacks.losses import LOSSES, Objective, kl_from_clean, targeted_margin
from apd_bench.attacks.search import Search


def pgd(search: Search, *, steps: int, step: float, schedule: str, restarts: int, start: str, loss: str) -> None:
    """Ascends `loss` (Madry et al., section 2.1); `step` is the (first) step length in units of ε.

    `schedule` "cosine" lets the step fall to a tenth, "constant" keeps it. Each restart sees the survivors only.
    """
    objective, α = search.objective(LOSSES[loss]), lengths(steps, step * search.threat.eps, schedule)
    for restart in range(restarts):
        for rows in search.batches():
            x = search.random(rows, "pgd", restart) if start == "uniform" or restart else search.region.x0[rows]
            projected_ascent(search, rows, x, objective, α)


def tpgd(search: Search, *, steps: int, step: float, schedule: str, restarts: int) -> None:
    """PGD on KL(clean || adversarial), the inner attack of TRADES (Zhang et al., ICML 2019, eq. 5)."""
    α = lengths(steps, step * search.threat.eps, schedule)
    for restart in range(restarts):
        for rows in search.batches():
            x = search.random(rows, "tpgd", restart)
            projected_ascent(search, rows, x, lambda z, rows: kl_from_clean(z, search.logits[rows]), α)


def pgd_targeted(search: Search, *, steps: int, step: float, schedule: str, targets: int, start: str) -> None:
    """PGD on z_t - z_y for each of the strongest wrong classes t in turn (MultiTargeted, Gowal et al., 2019).

    The survivors of one target go on to the next.
    """
    ranked, α = search.ranked_targets(targets), lengths(steps, step * search.threat.eps, schedule)
    if ranked.shape[1] != targets:
        search.effective["targets"] = ranked.shape[1]
    for place, t in enumerate(ranked.unbind(1)):
        for rows in search.batches():
            x = search.random(rows, "targeted", place) if start == "uniform" else search.region.x0[rows]
            projected_ascent(search, rows, x, search.objective(targeted_margin, t), α)


def projected_ascent(search: Search, rows: Tensor, x: Tensor, objective: Objective, α: Sequence[float]) -> None:
    """The ascent x <- Π(x + α_k sgn ∇f(x)) from x [A, 3, H, W], a step for each α_k (pixels); for L2, ∇f / |∇f|_2.

    Each step costs one gradient for every sample that still stands; the last point costs one forward pass.
    """
    region = search.region.take(rows)
    late = int(0.9 * len(α))
    for k, length in enumerate(α):
        if k == late:
            search.late_margin[rows] = search.margin[rows]
        z, _, g = search.meter.gradient(x, objective, rows)
        standing = search.see(rows, x, z)
        if standing is not None:
            if not len(standing):
                return
            rows, x, g, region = rows[standing], x[standing], g[standing], region.take(standing)
        x = region.step(x, g, length)
    search.see(rows, x, search.meter.predict(x))


def lengths(steps: int, first: float, schedule: str) -> list[float]:
    """Step lengths in pixel units: all `first`, or falling from `first` to a tenth of it along a cosine."""
    if schedule == "constant" or steps == 1:
        return [first] * steps
    return [first * (0.1 + 0.45 * (1 + math.cos(math.pi * k / (steps - 1)))) for k in range(steps)]
