"""FAP, few-shot adversarial prompt learning (Zhou et al., NeurIPS 2024, arXiv 2403.14774, section 3.3).

    L = CE(f(x), y) + lambda * mean_i [1 + cos(z(x_i), z(x'_i))] * KL(p(x_i) || p(x'_i))

with z the normalised image features and x' the maximiser of KL(p(x) || p(x')). The cosine factor drives clean and
adversarial features apart ("uni-modal difference") while the KL keeps the predictions together ("cross-modal
consistency"). The product is taken per sample, and the clean distribution is not detached, as in the released code.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch.nn.functional as F

from apd_bench.methods.objective import Adversary, Batch, Objective, Predictor, Terms, cross_entropy, kl, probabilities


@dataclass
class ConsistencyWithDifference(Objective):
    """`consistency_weight` is lambda; `difference` False leaves the cosine factor out (plain clean CE + KL)."""

    attacks: ClassVar[bool] = True

    consistency_weight: float = 1.5
    difference: bool = True

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """The clean cross-entropy and the weighted consistency; `_cosine` is logged."""
        clean = student(batch.pixels)
        attacked = student(adversary(batch.pixels, batch.labels, target=probabilities(clean)))
        divergence = kl(F.softmax(clean.logits, dim=-1), attacked.logits)  # [B]
        cosine = (clean.image_features * attacked.image_features).sum(dim=-1)  # [B]
        weight = 1 + cosine if self.difference else 1.0
        return {
            "ce_clean": cross_entropy(clean, batch.labels),
            "kl_adversarial": self.consistency_weight * (weight * divergence).mean(),
            "_cosine": cosine.mean(),
        }
