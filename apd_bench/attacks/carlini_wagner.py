"""The L2 attack of Carlini & Wagner (S&P 2017, section VI.A): min |δ|² + c max(z_y - max_{j != y} z_j, 0).

Three changes make it answer the question that is asked. The box is kept by projection: the paper's tanh has no
gradient where a pixel is 0 or 1. The margin is divided by that of the image, so that scaled logits change nothing, and
c and the step length start from the model's linearisation, where the best c is 2 d² for a boundary at distance d.
"""

import math

import torch
from torch import Tensor

from apd_bench.attacks.losses import margin, targeted_margin
from apd_bench.attacks.nearest import Nearest
from apd_bench.attacks.search import Search

_β1, _β2 = 0.9, 0.999


def carlini_wagner_l2(search: Search, *, steps: int, searches: int, rate: float, constant: float, targets: int) -> None:
    """The nearest adversarial points in L2, whatever the budget; column `distance` [B] (inf where none was found).

    `searches` values of c are tried, from `constant` d² on, d being the linearised distance, for the untargeted margin
    and again for the nearest of `targets` classes by the linearisation; `rate` is the first step of Adam in units of
    d / sqrt(pixels).
    """
    nearest = Nearest(search)
    if len(nearest.rows):
        d, t = nearest.linearise(targets)
        length = rate * d[:, None, None, None] / math.sqrt(nearest.x0[0].numel())
        for goal in (None, t):
            _search(nearest, constant * d**2, goal, length, steps, searches)
        nearest.tighten()
    nearest.finish()


def _search(nearest: Nearest, c: Tensor, t: Tensor | None, length: Tensor, steps: int, searches: int) -> None:
    """The search over the constants c [A], towards the classes t [A] or (None) away from the true one."""
    low, high = torch.zeros_like(c), torch.full_like(c, float("inf"))
    for _ in range(searches):
        succeeded = _descend(nearest, c, t, length, steps)
        high = torch.where(succeeded, torch.minimum(high, c), high)
        low = torch.where(succeeded, low, torch.maximum(low, c))
        # Between bounds the geometric middle; without one of them, a factor of four.
        c = torch.where(high.isinf(), c * 4, torch.where(low == 0, c / 4, (low * high).sqrt()))


def _descend(nearest: Nearest, c: Tensor, t: Tensor | None, length: Tensor, steps: int) -> Tensor:
    """Adam on the objective for the constants c [A]; the mask [A] of the samples that were broken on the way."""
    x0, y, meter = nearest.x0, nearest.y, nearest.search.meter
    unit = nearest.search.clean_margin[nearest.rows].abs().clamp_min(1e-12)
    δ, m, v = torch.zeros_like(x0), torch.zeros_like(x0), torch.zeros_like(x0)
    broken, aims = torch.zeros_like(c, dtype=torch.bool), () if t is None else (t,)

    def penalty(z: Tensor, c: Tensor, unit: Tensor, y: Tensor, *t: Tensor) -> Tensor:
        gap = -targeted_margin(z, y, *t) if t else -margin(z, y)
        return c * (gap / unit).clamp_min(0)

    for k in range(1, steps + 1):
        z, _, g = meter.gradient(x0 + δ, penalty, c, unit, y, *aims)
        broken |= nearest.see(x0 + δ, z)
        g = g + 2 * δ
        m, v = _β1 * m + (1 - _β1) * g, _β2 * v + (1 - _β2) * g * g
        move = (m / (1 - _β1**k)) / ((v / (1 - _β2**k)).sqrt() + 1e-12)
        α = length * (0.05 + 0.475 * (1 + math.cos(math.pi * k / steps)))
        δ = (x0 + δ - α * move).clamp(0, 1) - x0
    return broken | nearest.see(x0 + δ, meter.predict(x0 + δ))
