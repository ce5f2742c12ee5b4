"""TAPT-V, test-time adversarial prompt tuning (Wang et al., CVPR 2025): visual prompts adapted to every image.

Code: xinwong/TAPT, trainers/adv_v.py. One AdamW step makes the confident views surer and pulls what the blocks of the
tower give towards what they give for the training images: once with the prompts as they were learned, once with
prompts of clean training. The second is taken here from the tower without prompts, at the class token and the patches,
so that no second training is needed. The image itself is predicted with the adapted prompts; the texts stay.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import ClassVar

import torch
from torch import Tensor

from apd_bench.core.errors import IncompatibleChoice
from apd_bench.defences.mean_views import OfViews
from apd_bench.defences.prompt_tuning import adamw, mean_entropy, surest
from apd_bench.defences.views import View


class TAPT(OfViews):
    """One step on H(mean_v p_v) + λ Σ_l (A_l + C_l) / 2 of the confident views, in the visual prompts [d, n, W].

    A_l = (|μ_l - μ*_l| + |σ²_l - σ*²_l|) / 2, means over tokens and channels of block l, with the statistics μ, σ² of
    the views at each token and μ*, σ*² of the training images; C_l the same with the statistics without prompts.
    """

    gradients: ClassVar[tuple[str, ...]] = ("replay", "unrolled")
    learns: ClassVar[bool] = True

    def prepare(self) -> None:
        """Checks the options and that there are prompts."""
        super().prepare()
        self.whole("blocks")
        if self.classifier.visual_tokens is None:
            raise IncompatibleChoice("TAPT tunes visual prompts, and this model has learned none.")

    @torch.no_grad()
    def learn(self, batches: Iterable[Tensor]) -> dict[str, Tensor]:
        """Means and unbiased variances [L, T, W] of what each block but the last gives, with prompts and without."""
        sums: dict[str, Tensor] = {}
        count = 0
        for x in batches:
            count += len(x)
            for name, tokens in (("prompted", None), ("plain", x.new_empty(0))):
                outputs: list[Tensor] = []
                self.classifier.features(x, tokens, outputs)
                block = torch.stack(outputs).double().cpu()
                sums[f"{name}.1"] = sums.get(f"{name}.1", 0) + block.sum(1)
                sums[f"{name}.2"] = sums.get(f"{name}.2", 0) + block.square().sum(1)
        known: dict[str, Tensor] = {}
        for name in ("prompted", "plain"):
            mean = sums[f"{name}.1"] / count
            variance = (sums[f"{name}.2"] / count - mean.square()).clamp_min(0) * (count / max(count - 1, 1))
            known |= {f"{name}.mean": mean.float(), f"{name}.variance": variance.float()}
        return known

    def predict(self, x: Tensor, noise: list[View]) -> Tensor:
        """The logits of the image with the prompts that its views have adapted."""
        P = self.adapted(self.seen(self.constant(x), noise))
        return self.classifier.scores(self.features(x, P.movedim(0, 1)))

    def adapted(self, views: Tensor) -> Tensor:
        """Prompts [B, d, n, W] after one step on the most confident of the views [B, V, 3, H, W]."""
        with torch.no_grad():
            z = self.classifier.scores(self.features(views.flatten(0, 1))).view(*views.shape[:2], -1)
        sure = surest(z, self.options["share"])
        count = sure.shape[1]
        seen = views.gather(1, sure[..., None, None, None].expand(-1, -1, *views.shape[2:]))

        def loss(P: Tensor) -> Tensor:
            outputs: list[Tensor] = []
            each = P[:, None].expand(-1, count, -1, -1, -1).flatten(0, 1).movedim(0, 1)
            logits = self.classifier.scores(self.features(seen.flatten(0, 1), each, outputs))
            surer = mean_entropy(logits.view(len(P), count, -1))
            gap: Tensor = self.options["weight"] * self.gap(outputs[: self.options["blocks"]], count)
            return surer + gap

        P = self.classifier.visual_tokens.expand(len(views), -1, -1, -1)  # type: ignore[union-attr]
        return self.constant(adamw(P, self.gradient(loss, P), self.options["rate"]))

    def gap(self, outputs: list[Tensor], count: int) -> Tensor:
        """Σ_l (A_l + C_l) / 2 as [B], for what the blocks give, each [B * count, T, W]."""
        gap = outputs[0].new_zeros(len(outputs[0]) // count)
        for block, x in enumerate(outputs):
            variance, mean = torch.var_mean(x.view(-1, count, *x.shape[1:]), dim=1, correction=0)
            for name in ("prompted", "plain"):
                μ, σ2 = (self.known[f"{name}.{what}"][block].to(x) for what in ("mean", "variance"))
                T = len(μ)  # without prompts there are fewer tokens
                gap = gap + ((mean[:, :T] - μ).abs() + (variance[:, :T] - σ2).abs()).mean((1, 2)) / 4
        return gap
