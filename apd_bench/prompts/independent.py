"""Independent prompts in both towers: IVLP (Rasheed et al., CVPR 2023), the learner of AdvVLP and of APD's student."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch

from apd_bench.backbones.slots import Prompts, TextPrompts, VisualPrompts
from apd_bench.prompts.base import normal, whole
from apd_bench.prompts.catalog import NEEDS
from apd_bench.prompts.context import ContextLearner


class IndependentLearner(ContextLearner):
    """Deep text prompts and deep visual tokens with nothing in common but the loss.

    Text context starts from the first words of `init`; everything deeper from N(0, 0.02^2). Depths beyond a tower
    mean all of its blocks.
    """

    needs: ClassVar[Collection[str]] = NEEDS["independent"]
    defaults: ClassVar[Mapping[str, Any]] = {
        "text_tokens": 2,
        "visual_tokens": 2,
        "text_depth": 9,
        "visual_depth": 9,
        "init": "a photo of a",
        "position": "end",
    }

    def start(self, generator: torch.Generator) -> None:
        """Draws both towers' prompts."""
        shapes, options = self.backbone.shapes, self.options
        text_tokens = whole(options, "text_tokens")
        text_depth = self.blocks("text_depth", shapes.text_layers)
        visual_depth = self.blocks("visual_depth", shapes.visual_layers)
        self.context = self._draw(text_tokens, generator)
        self.deep = normal(text_depth - 1, text_tokens, shapes.text_width or 0, generator=generator)
        visual_tokens = whole(options, "visual_tokens")
        self.tokens = normal(visual_depth, visual_tokens, shapes.visual_width or 0, generator=generator)

    def forward(self) -> Prompts:
        """Both towers' prompts."""
        return Prompts(TextPrompts(self.context, self.deep, self.rows()), VisualPrompts(self.tokens))
