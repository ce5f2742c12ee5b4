"""TPT, test-time prompt tuning (Shu et al., NeurIPS 2022): the control with tuning and without a mean over views.

Code: azshue/TPT, tpt_classification.py.
"""

from __future__ import annotations

from torch import Tensor

from apd_bench.defences.prompt_tuning import PromptTuning, mean_entropy
from apd_bench.defences.views import View


class TPT(PromptTuning):
    """One step on H(mean_v p_v) of the confident views; prediction of the image itself."""

    def loss(self, logits: Tensor) -> Tensor:
        """The entropy of the mean prediction."""
        return mean_entropy(logits)

    def predict(self, x: Tensor, noise: list[View]) -> Tensor:
        """The logits of the image with the tuned prompt; its views act through the prompt alone."""
        z = self.view_features(self.constant(x), noise)
        if not (x.requires_grad and not self.unrolled):
            return self.scale(z[:, :1], self.tuned(self.constant(z))).squeeze(1)
        return self.scale(self.view_features(x, []), self.tuned(z)).squeeze(1)
