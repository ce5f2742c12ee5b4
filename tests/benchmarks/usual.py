"""The attacks as the field's code writes them: no active set, no best point, the last iterate counts.

PGD is torchattacks' own where it is installed, else the same lines written here; "CW" is that loop on the margin loss,
as in the code of FAP and its relatives; AutoAttack is pyautoattack's own driver. None of our adapters takes part.
"""

import logging
import sys
from collections.abc import Callable
from importlib.util import find_spec

import torch
from torch import Tensor, nn
from torch.nn import functional

from apd_bench.attacks.losses import margin


class PassCounter(nn.Module):
    """A model that counts its image passes in both directions."""

    def __init__(self, model: nn.Module) -> None:
        super().__init__()
        self.model = model
        self.forwards = self.backwards = 0

    def forward(self, x: Tensor) -> Tensor:
        """The model's logits [B, C]."""
        self.forwards += len(x)
        logits: Tensor = self.model(x)
        if logits.requires_grad:
            logits.register_hook(self._count)
        return logits

    def _count(self, g: Tensor) -> None:
        self.backwards += len(g)


def pgd(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, steps: int, step: float) -> Tensor:
    """Cross-entropy PGD from a random start, `steps` gradients of every sample; `step` in pixel units."""
    if find_spec("torchattacks") is None:
        return plain(model, x, lambda z: functional.cross_entropy(z, y), eps=eps, steps=steps, step=step)
    import torchattacks

    return torchattacks.PGD(model, eps=eps, alpha=step, steps=steps)(x, y).detach()


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
        points = points.detach() + step * g.sign()
        points = (x + (points - x).clamp(-eps, eps)).clamp(0, 1)
    return points.detach()


def autoattack(model: nn.Module, x: Tensor, y: Tensor, *, eps: float, seed: int) -> Tensor:
    """The points [B, 3, H, W] of standard AutoAttack (Linf)."""
    from pyautoattack import AutoAttack

    library = AutoAttack(model, norm="Linf", eps=eps, version="standard", seed=seed, device=x.device)
    targets = min(9, model(x[:1]).shape[1] - 1)  # with fewer than ten classes the library would stop with an IndexError
    library.apgd_targeted.n_target_classes = library.fab.n_target_classes = targets
    logger = logging.getLogger("auto-attack")
    level, trace = logger.level, sys.gettrace()  # which the library's checks switch off
    logger.setLevel(logging.CRITICAL)
    try:
        return library.run_standard_evaluation(x, y, batch_size=len(x))[0].detach()
    finally:
        sys.settrace(trace)
        logger.setLevel(level)


def limit(model: Callable[[Tensor], Tensor], x: Tensor, *, steps: int, forwards: int = 2) -> Tensor:
    """The passes of an own PGD that nobody leaves, with nothing in between: `forwards` and `steps` gradients."""
    with torch.no_grad():
        for _ in range(forwards):
            model(x)
    points = x.detach().requires_grad_()
    for _ in range(steps):
        torch.autograd.grad(model(points).sum(), points)
    return points.detach()
