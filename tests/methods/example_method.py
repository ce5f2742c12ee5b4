"""A new method in one file: AdvVLP with label smoothing and a pull towards the hand-made prompt.

apd-bench check example_method.py:SMOOTH
apd-bench run --methods example_method.py:SMOOTH,advvlp
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch.nn.functional as F

from apd_bench.methods import Batch, Objective, define
from apd_bench.methods.objective import Adversary, Predictor, Setting, Terms


@dataclass
class SmoothedAndAnchored(Objective):
    """CE(f(x'; P), smoothed y) + weight * mean_k [1 - cos(w_k(P), w_k(hand-made))]. The fields are the options."""

    attacks: ClassVar[bool] = True  # so it gets an adversary and needs a training budget

    smoothing: float = 0.1
    anchor_weight: float = 1.0
    _anchor: object = field(default=None, init=False, repr=False)

    def prepare(self, setting: Setting) -> None:
        """Once before the first step: the text features of the data set's template."""
        self._anchor = setting.hand_made().text_features

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """The terms of one step; their sum is minimised, each is logged by name."""
        attacked = student(adversary(batch.pixels, batch.labels))
        entropy = F.cross_entropy(attacked.logits, batch.labels, label_smoothing=self.smoothing)
        distance = 1 - (student.text_features * self._anchor).sum(dim=-1)  # [C]
        return {"ce_adversarial": entropy, "anchor": self.anchor_weight * distance.mean()}


SMOOTH = define(
    "smooth",
    base="advvlp",  # learner, inner attack and training of AdvVLP; only the difference is written down
    objective=SmoothedAndAnchored,
    objective_options={"smoothing": 0.1, "anchor_weight": 1.0},
    title="AdvVLP with smoothed labels, anchored to the hand-made prompt",
    sources={"objective.smoothing": "inferred: a usual value", "objective.anchor_weight": "inferred: untuned"},
)
