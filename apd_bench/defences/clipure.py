"""CLIPure-Cos (Zhang et al., ICLR 2025): the image feature is turned towards the text of an empty prompt.

Code: TMLResearchGroup-CAS/CLIPure, CLIP_eval/CLIPure_Cos.py. All iterates lie in the plane of the feature u and the
text t. A step of 30 turns u by arctan 30 = 88 degrees, past t, and the next one turns it back: after an even number of
steps u is where it began, and the gradient that the released code gives, with the direction as a constant, is a
projection times 30^-steps. There the direction is normalised over the batch, so images see each other; here by image.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

import torch
from torch import Tensor
from torch.nn.functional import normalize

from apd_bench.defences.base import Defence
from apd_bench.prompts.base import fill


class CLIPureCos(Defence):
    """m = unit(t - <u, t> u), u <- unit(u + λ m), so many times; t is the template without a class name."""

    gradients: ClassVar[tuple[str, ...]] = ("replay", "unrolled")

    def prepare(self) -> None:
        """Encodes the empty prompt, of an ensemble the mean over its templates."""
        learner, backbone = self.classifier.learner, self.classifier.backbone
        texts: Sequence[str] = [self.options["text"] or "a photo of a {}."]
        if learner is not None and not self.options["text"]:
            texts = learner.used_templates or learner.template.splitlines()
        with torch.no_grad():
            empty = backbone.encode_text(backbone.tokenize([fill(text, "") for text in texts]))
        t = normalize(normalize(empty, dim=-1).mean(0, keepdim=True), dim=-1)
        self.register_buffer("t", t, persistent=False)

    def predict(self, x: Tensor, noise: None) -> Tensor:
        """The logits of the turned feature."""
        u, t = normalize(self.features(x), dim=-1), self.get_buffer("t")
        t = t.to(u)
        for _ in range(self.whole("steps")):
            m = self.constant(normalize(t - (u * t).sum(1, keepdim=True) * u, dim=-1))
            u = normalize(u + self.options["step"] * m, dim=-1)
        return self.classifier.scores(u)
