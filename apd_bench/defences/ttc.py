"""TTC, test-time counterattack (Xing et al., CVPR 2025): away from where the attack has driven the features.

Code: Sxing2/CLIP-Test-time-Counterattacks, code/test_time_counterattack.py. The features are not normalised there.
"""

from __future__ import annotations

from typing import ClassVar

import torch
from torch import Tensor
from torch.linalg import vector_norm

from apd_bench.defences.base import Defence, Draw

_ROOM = 0.02  # by which an attacker keeps the gate off: other draws have another drift


class TTC(Defence):
    """d_{i+1} = clip(d_i + α sign ∇ |f(x + d_i) - f(x)|²) from uniform noise d_0; prediction at x + sum_i v_i d_i.

    Only where the noise moves the features by less than `threshold`; else the prediction is that at x + d_0.
    """

    draws: ClassVar[bool] = True
    gate: ClassVar[bool] = True

    def noise(self, generator: torch.Generator, shape: torch.Size) -> Tensor:
        """Uniform in the box of half-width ε."""
        return (2 * torch.rand(shape, generator=generator) - 1) * float(self.options["radius"])

    def predict(self, x: Tensor, noise: Tensor) -> Tensor:
        """The logits of the counterattacked image."""
        ε, α, β = (self.options[name] for name in ("radius", "step", "weighting"))
        x0 = self.constant(x)
        f0 = self.constant(self.features(x0))
        moved: list[Tensor] = []

        def drift(d: Tensor) -> Tensor:
            moved.append(self.features(x0 + d))
            return (moved[-1] - f0).pow(2).sum(1)

        d = [inside(x0, noise.to(x0).expand_as(x0))]
        for _ in range(self.whole("steps")):
            g = self.gradient(drift, d[-1])
            d.append(inside(x0, (d[-1] + α * g.sign()).clamp(-ε, ε)))
        τ = vector_norm(moved[0] - f0, dim=1) / vector_norm(f0, dim=1)
        v = (β * torch.arange(len(d)).to(x0)).softmax(0)
        counter = torch.stack([weight * step for weight, step in zip(v, d, strict=True)]).sum(0)
        on = (self.constant(τ) < self.options["threshold"])[:, None, None, None]
        return self.classifier.scores(self.features(x + self.constant(torch.where(on, counter, d[0]))))

    def hinge(self, x: Tensor, draw: Draw) -> Tensor:
        """max(0, threshold + room - τ)."""
        d = inside(x.detach(), self.drawn(draw, x).to(x).expand_as(x))
        f0 = self.features(x)
        τ = vector_norm(self.features(x + d) - f0, dim=1) / vector_norm(f0, dim=1)
        return torch.relu(self.options["threshold"] + _ROOM - τ)


def inside(x: Tensor, d: Tensor) -> Tensor:
    """D cut so that x + d stays in [0, 1]."""
    return (x + d).clamp(0, 1) - x
