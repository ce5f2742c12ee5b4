"""DDN (Rony et al., CVPR 2019): a walk on a sphere whose radius shrinks outside of the boundary and grows inside.

Radius and step length start from the model's linearisation at the image instead of at 1, so that small distances are
found as well as large ones; the radius' factor falls along with the step, and a bisection ends the search. A second
walk aims at the class that is nearest by the linearisation, because cross-entropy aims at a mixture of classes.
"""

import math
from collections.abc import Callable

import torch
from torch import Tensor

from apd_bench.attacks.losses import stable_ce, targeted_margin
from apd_bench.attacks.nearest import Nearest
from apd_bench.attacks.projections import l2
from apd_bench.attacks.search import Search


def ddn(search: Search, *, steps: int, gamma: float, targets: int) -> None:
    """The nearest adversarial points in L2, whatever the budget; column `distance` [B] (inf where none was found).

    The two walks are algorithm 1 of the paper with γ = `gamma`; the second aims at the nearest of `targets` classes.
    """
    nearest = Nearest(search)
    if len(nearest.rows):
        d, t = nearest.linearise(targets)
        _walk(nearest, d, stable_ce, (nearest.y,), steps, gamma)
        _walk(nearest, d, targeted_margin, (nearest.y, t), steps, gamma)
        nearest.tighten()
    nearest.finish()


def _walk(
    nearest: Nearest, d: Tensor, loss: Callable[..., Tensor], columns: tuple[Tensor, ...], steps: int, γ: float
) -> None:
    """One walk from the images on `loss(logits, *columns)`; d [A] is the first radius."""
    x0, meter = nearest.x0, nearest.search.meter
    unit = ε = d[:, None, None, None]
    found = torch.zeros_like(ε, dtype=torch.bool)
    δ = torch.zeros_like(x0)
    for k in range(steps):
        falling = 0.5 * (1 + math.cos(math.pi * k / steps))
        z, _, g = meter.gradient(x0 + δ, loss, *columns)
        adversarial = nearest.see(x0 + δ, z)[:, None, None, None]
        found |= adversarial
        if k:
            # Until something is found, the radius grows faster: the linearisation can fall far short.
            growth = torch.where(found, 1 + γ * max(falling, 0.1), 1 + 2 * γ)
            ε = torch.where(adversarial, ε / growth, ε * growth)
        δ = δ + unit * max(falling, 0.01) * g / l2(g).clamp_min(1e-12)
        δ = (x0 + δ * (ε / l2(δ).clamp_min(1e-12))).clamp(0, 1) - x0
    nearest.see(x0 + δ, meter.predict(x0 + δ))
