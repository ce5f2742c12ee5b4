"""R-TPT (Sheng et al., CVPR 2025): pointwise entropy, and views weighted by how alike they are to the others.

Code: TomSheng21/R-TPT, rtpt.py. The released code attacks before it resets the prompt, so against the prompt of the
image before, and truncates the attacked image to 8 bit; here nothing stays between images and pixels are not rounded.
Its mask of a view's similarity to itself misses values that round below 1; here the mask is exact.
"""

from __future__ import annotations

import torch
from torch import Tensor

from apd_bench.defences.prompt_tuning import PromptTuning, entropy
from apd_bench.defences.views import View


class RTPT(PromptTuning):
    """One step on mean_v H(p_v) of the confident views; prediction sum_v w_v z_v over all views."""

    def loss(self, logits: Tensor) -> Tensor:
        """The mean entropy of the views."""
        return entropy(logits).mean(1)

    def predict(self, x: Tensor, noise: list[View]) -> Tensor:
        """Logits weighted by softmax(r / T), r the mean of a view's largest similarities to other views."""
        z = self.view_features(x, noise)
        w = self.tuned(self.constant(z))
        itself = torch.eye(z.shape[1], dtype=torch.bool, device=z.device)
        alike = (z @ z.transpose(1, 2)).masked_fill(itself, float("-inf"))
        nearest = alike.topk(min(self.whole("neighbours"), max(z.shape[1] - 1, 1)), dim=2).values.mean(2)
        weights = (nearest / self.options["temperature"]).softmax(1) if z.shape[1] > 1 else torch.ones_like(nearest)
        return (weights[..., None] * self.scale(z, w)).sum(1)
