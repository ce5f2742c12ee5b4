"""The attacks as the field's code writes them: no active set, no best point, the last iterate counts.

PGD is torchattacks' own where it is installed, else the same lines written here; "CW" is that loop on the margin loss,
as in the code of FAP and its relatives; AutoAttack is pyautoattack's own driver.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

from apd_bench.attacks import libraries
from apd_bench.attacks.losses import margin


class Counted(nn.Module):
    """A model that counts its image passes in both directions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits [B, K]."""
        self.forwards += len(x)
        logits: Tensor = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)  # type: ignore[no-untyped-call]
        return logits

    def _count(self, g: Tensor) -> None:
        self.backwards += len(g)


def pgd(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, steps: int, step: float) -> Tensor:
    """Cross-entropy PGD from a random start, `steps` gradients of every sample; `step` in units of eps."""
    if libraries.has_torchattacks():
        return libraries.torchattacks_pgd(model, x, y, eps, steps=steps, step=step * eps)
    return plain(model, x, lambda z: functional.cross_entropy(z, y), eps=eps, steps=steps, step=step)


def cw(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, steps: int, step: float) -> Tensor:
    """What the field calls CW: the same loop on the margin, and margins beyond the boundary count as nothing."""
    return plain(model, x, lambda z: margin(z, y).clamp(max=0).sum(), eps=eps, steps=steps, step=step)


def plain(
    model: nn.Module, x: Tensor, loss: Callable[[Tensor], Tensor], *, eps: float, steps: int, step: float
) -> Tensor:
    """The loop that all of this field's code bases have in one form or another."""
    points = (x + torch.empty_like(x).uniform_(-eps, eps)).clamp(0, 1)
    for _ in range(steps):
        points = points.detach().requires_grad_()
        (g,) = torch.autograd.grad(loss(model(points)), points)
        points = points.detach() + step * eps * g.sign()
        points = (x + (points - x).clamp(-eps, eps)).clamp(0, 1)
    return points.detach()


def limit(model: nn.Module, x: Tensor, *, steps: int) -> Tensor:
    """The passes of an own PGD that nobody leaves, with nothing in between: two forwards and `steps` gradients."""
    with torch.no_grad():
        model(x)
        model(x)
    points = x.detach().requires_grad_()
    for _ in range(steps):
        torch.autograd.grad(model(points).sum(), points)
    return points.detach()
