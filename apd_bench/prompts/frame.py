"""A learned pixel frame with shallow visual tokens: AdvVP as in TeCoA's code (Mao et al., ICLR 2023)."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch.nn import functional

from apd_bench.backbones.slots import Prompts, VisualPrompts
from apd_bench.core.errors import UsageError
from apd_bench.prompts.base import PromptLearner, normal, whole
from apd_bench.prompts.catalog import NEEDS

REFERENCE_SIZE = 224


class FrameLearner(PromptLearner):
    """Four strips [3, pad, S] around the image, added after normalisation, and `tokens` visual tokens at the input.

    `pad` counts pixels of a 224-pixel image and is scaled to the backbone's image size. The strips are drawn from
    N(0, std^2) and the tokens from N(0, token_std^2), both with 1 in TeCoA's code. The frame acts in the attack and in
    the prediction alike.
    """

    needs: ClassVar[Collection[str]] = NEEDS["frame"]
    defaults: ClassVar[Mapping[str, Any]] = {"pad": 30, "tokens": 5, "std": 1.0, "token_std": 1.0}

    def start(self, generator: torch.Generator) -> None:
        """Draws the strips and the tokens."""
        shapes, options = self.backbone.shapes, self.options
        size, std = shapes.image_size, float(options["std"])
        self.pad = max(1, round(whole(options, "pad", 1) * size / REFERENCE_SIZE))
        self.effective["pad_pixels"] = self.pad
        inside = size - 2 * self.pad
        if inside < 1:
            raise UsageError(f"A frame of {options['pad']} pixels leaves nothing of an image of {REFERENCE_SIZE}.")
        self.top = normal(3, self.pad, size, generator=generator, std=std)
        self.bottom = normal(3, self.pad, size, generator=generator, std=std)
        self.left = normal(3, inside, self.pad, generator=generator, std=std)
        self.right = normal(3, inside, self.pad, generator=generator, std=std)
        tokens, token_std = whole(options, "tokens"), float(options["token_std"])
        self.tokens = normal(1, tokens, shapes.visual_width or 0, generator=generator, std=token_std)

    def forward(self) -> Prompts:
        """The frame [3, S, S], zero inside, and the tokens of the first layer."""
        inside = self.top.shape[2] - 2 * self.pad
        middle = torch.cat([functional.pad(self.left, (0, inside)), self.right], dim=2)
        return Prompts(visual=VisualPrompts(self.tokens, torch.cat([self.top, middle, self.bottom], dim=1)))
