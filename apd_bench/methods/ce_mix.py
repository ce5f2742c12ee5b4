"""CE mix: `CE(f(x), y) + w CE(f(x'), y)`, the simple baseline that a good method must beat.

The row "CE + CE(adv)" of CBA-FAPT's ablation (AAAI 2026, Table 3), which beats FAP on new classes. Both terms use one
forward pass over the concatenated images.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from apd_bench.methods.objective import Adversary, Batch, Objective, Predictor, Terms


@dataclass
class MixedCrossEntropy(Objective):
    """`adversarial_weight` is w."""

    attacks: ClassVar[bool] = True

    adversarial_weight: float = 5.0

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """The two cross-entropies."""
        attacked = adversary(batch.pixels, batch.labels)
        clean, adversarial = student(torch.cat([batch.pixels, attacked])).logits.chunk(2)
        return {
            "ce_clean": F.cross_entropy(clean, batch.labels),
            "ce_adversarial": self.adversarial_weight * F.cross_entropy(adversarial, batch.labels),
        }
