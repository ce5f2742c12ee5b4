"""AdvPT, adversarial prompt tuning on stored features (Zhang et al., ECCV 2024, arXiv 2311.11261, section 3.2).

Once, before training, every training image is attacked without labels or text: with e the raw image embedding,

    x' = argmax_{B_eps(x)} KL(softmax(e(x)) || softmax(e(x'))),    bank_i = e(x'_i)

Then the text context alone is tuned on the bank: `min_v CE(s cos(bank_i, T(v)), y_i)`. The attack never sees the
learned prompt, so the paper's evaluation (the same attack, cached) is not a white-box one; here the method is evaluated
end to end like every other, and near-zero robustness is the expected outcome on a standard backbone.
"""

from dataclasses import dataclass, field
from typing import ClassVar

import torch
import torch.nn.functional as F
from torch import Tensor

from apd_bench.core.errors import UsageError
from apd_bench.methods.adversary import ascend
from apd_bench.methods.objective import Adversary, Batch, Objective, Predictor, Setting, Terms, kl


@dataclass
class FeatureBank(Objective):
    """No options; the bank [N, D] is made by `prepare`, from un-augmented images."""

    attacks: ClassVar[bool] = True

    _bank: Tensor | None = field(default=None, init=False, repr=False)
    _scale: float = field(default=1.0, init=False, repr=False)
    _bias: float = field(default=0.0, init=False, repr=False)

    def prepare(self, setting: Setting) -> None:
        """Attacks the embedding of every training image and stores the result."""
        encode = setting.backbone.encode_image
        parts: list[Tensor] = []
        for indexes in torch.split(torch.arange(setting.size), max(32, setting.batch_size)):
            pixels = setting.images(indexes)
            with torch.no_grad():
                target = F.softmax(encode(pixels), dim=-1)
            attacked = self._attack(pixels, target, setting)
            with torch.no_grad():
                parts.append(F.normalize(encode(attacked), dim=-1))
            setting.count(len(indexes), int(setting.inner_attack["steps"]) + 2, int(setting.inner_attack["steps"]))
        self._bank = torch.cat(parts)
        self._scale, self._bias = setting.backbone.logit_scale, setting.backbone.logit_bias

    def __call__(self, student: Predictor, batch: Batch, adversary: Adversary, teacher: Predictor | None) -> Terms:
        """The cross-entropy of the current text features on the stored image features; no image is encoded."""
        if self._bank is None:
            raise UsageError("The feature bank was not made.", hint="Call prepare(setting) first.")
        features = self._bank[batch.indexes.to(self._bank.device)]
        logits = self._scale * F.linear(features, student.text_features) + self._bias
        return {"ce_adversarial": F.cross_entropy(logits, batch.labels)}

    @staticmethod
    def _attack(pixels: Tensor, target: Tensor, setting: Setting) -> Tensor:
        if setting.eps == 0:
            return pixels
        return ascend(
            setting.backbone.encode_image,
            pixels,
            lambda embedding: kl(target, embedding).sum(),
            eps=setting.eps,
            options=setting.inner_attack,
            generator=setting.generator,
        )
