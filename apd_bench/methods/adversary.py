"""The adversary of training: the inner maximisation of every adversarial prompt method.

It attacks the student with its prompts and text features of this step, detached: the text tower is never called, and
gradients are taken with respect to the pixels only.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TypeVar

import torch
from torch import Tensor

from apd_bench.attacks.losses import LOSSES
from apd_bench.core.errors import UsageError
from apd_bench.core.specs import Options
from apd_bench.methods.objective import Attacked, Predictor, kl

Seen = TypeVar("Seen")


@dataclass(frozen=True)
class InnerAdversary:
    """PGD within `eps` ([0,1] pixel units) on `student`, with the recipe's [inner_attack] `options`."""

    student: Predictor
    eps: float
    options: Options
    generator: torch.Generator

    def __call__(
        self,
        pixels: Tensor,
        labels: Tensor,
        *,
        target: Tensor | None = None,
        loss: Attacked | None = None,
        against: Predictor | None = None,
    ) -> Tensor:
        """Adversarial images [B, 3, H, W]; `pixels` themselves for a budget of 0."""
        if self.eps == 0:
            return pixels
        return ascend(
            against if against is not None else self.student,
            pixels,
            loss if loss is not None else named_loss(str(self.options["loss"]), labels, target),
            eps=self.eps,
            options=self.options,
            generator=self.generator,
        )


def start(pixels: Tensor, eps: float, kind: str, generator: torch.Generator) -> Tensor:
    """Where an inner attack begins.

    "uniform" is U[-eps, eps], "uniform-positive" U[0, eps] (AdvPT), "gaussian" 0.001 N(0, 1), clipped neither to the
    ball nor to [0,1], as in the code of TRADES and RSLAD (the first step does both), "none" the image itself.
    """
    if kind == "none":
        return pixels.clone()
    shape, device = pixels.shape, generator.device
    if kind == "gaussian":
        return pixels + 0.001 * torch.randn(shape, device=device, generator=generator).to(pixels.device)
    least = 0.0 if kind == "uniform-positive" else -eps
    noise = torch.empty(shape, device=device).uniform_(least, eps, generator=generator)
    return (pixels + noise.to(pixels.device)).clamp(0, 1)


def project(moved: Tensor, pixels: Tensor, eps: float) -> Tensor:
    """`moved` clipped to the Linf ball around `pixels` and to [0,1]."""
    return torch.minimum(torch.maximum(moved, pixels - eps), pixels + eps).clamp(0, 1)


def ascend(
    model: Callable[[Tensor], Seen],
    pixels: Tensor,
    loss: Callable[[Seen], Tensor],
    *,
    eps: float,
    options: Options,
    generator: torch.Generator,
) -> Tensor:
    """Images after `steps` signed-gradient steps of `step * eps` on `loss` of what `model` makes of them."""
    moved = start(pixels, eps, str(options["start"]), generator)
    for _ in range(int(options["steps"])):
        moved = moved.detach().requires_grad_(True)
        with torch.enable_grad():
            (gradient,) = torch.autograd.grad(loss(model(moved)), moved)
        moved = project(moved.detach() + float(options["step"]) * eps * gradient.sign(), pixels, eps)
    return moved.detach()


def named_loss(name: str, labels: Tensor, target: Tensor | None) -> Attacked:
    """The recipe's inner loss by name, summed over the samples; UsageError where the method has no such loss."""
    if name in LOSSES:
        return lambda prediction: LOSSES[name](prediction.logits, labels).sum()
    if name == "kl" and target is not None:
        return lambda prediction: kl(target, prediction.logits).sum()
    raise UsageError(f"This method cannot attack with inner_attack.loss = '{name}'.", hint="Use 'ce' or 'margin'.")
