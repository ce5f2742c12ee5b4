"""Anti-Adversary (Alfarra et al., AAAI 2022): a small change that makes the model surer of what it says already.

Code: MotasemAlfarra/Combating-Adversaries-with-Anti-Adversaries, Anti_Adv.py: neither projected nor clipped.
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import cross_entropy

from apd_bench.defences.base import Defence


class AntiAdversary(Defence):
    """d <- d - α sign ∇ CE(z(x + d), arg max z(x)) from d = 0; prediction at x + d."""

    def predict(self, x: Tensor, noise: None) -> Tensor:
        """The logits of the image with its anti-adversary."""
        x0 = self.constant(x)
        said = self.logits(x0).argmax(1)
        d = torch.zeros_like(x0)
        for _ in range(self.whole("steps")):
            g = self.gradient(lambda d: cross_entropy(self.logits(x0 + d), said, reduction="none"), d)
            d = d - self.options["step"] * g.sign()
        return self.logits(x + self.constant(d))
