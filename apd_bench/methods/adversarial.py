"""Adversarial prompt tuning: `min_P max_{x' in B_eps(x)} CE(f(x'; P), y)`, and its two softer forms.

The loss of AdvVP, AdvTP (APT), AdvVLP and AdvMaPLe, which differ in their learners:
- `adversarial`: adversarial images only (TeCoA's loss, Mao et al., ICLR 2023; FAP's baselines, APT);
- `half`: one cross-entropy over a batch whose first half is clean and second half adversarial (the code of Multimodal
  Adversarial Prompt Tuning), `1/n (sum_{i in N} CE(f(x_i), y_i) + sum_{i in A} CE(f(x'_i), y_i))`;
- `trades`: `CE(f(x), y) + beta KL(p(x) || p(x'))` (Zhang et al., ICML 2019), the clean distribution not detached. Its
  attack maximises the same KL: the recipe says so with `inner_attack.loss = "kl"`.
"""

from dataclasses import dataclass
from typing import ClassVar

import torch
import torch.nn.functional as F

from apd_bench.core.specs import one_of
from apd_bench.methods.objective import Adversary, Batch, Objective, Predictor, Terms, cross_entropy, kl, probabilities

LOSSES = ("adversarial", "half", "trades")


@dataclass
class AdversarialCrossEntropy(Objective):
    """`loss` is one of "adversarial", "half", "trades"; `beta` weighs the KL of "trades"."""

    attacks: ClassVar[bool] = True

    loss: str = "adversarial"
    beta: float = 1.0

    def __post_init__(self) -> None:
        one_of("The loss of adversarial training", self.loss, LOSSES)

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """The terms of the chosen loss on clean images x and adversarial images x'."""
        pixels, labels = batch.pixels, batch.labels
        if self.loss == "half":
            count, middle = len(labels), len(labels) // 2
            attacked = adversary(pixels[middle:], labels[middle:])
            logits = student(torch.cat([pixels[:middle], attacked])).logits
            losses = F.cross_entropy(logits, labels, reduction="none")
            return {"ce_clean": losses[:middle].sum() / count, "ce_adversarial": losses[middle:].sum() / count}
        if self.loss == "trades":
            clean = student(pixels)
            attacked = adversary(pixels, labels, target=probabilities(clean))
            divergence = kl(F.softmax(clean.logits, dim=-1), student(attacked).logits)
            return {"ce_clean": cross_entropy(clean, labels), "kl_adversarial": self.beta * divergence.mean()}
        return {"ce_adversarial": cross_entropy(student(adversary(pixels, labels)), labels)}
