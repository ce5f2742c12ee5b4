"""Independent prompts in both towers: IVLP (Rasheed et al., CVPR 2023), the learner of AdvVLP and of APD's student."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from apd_bench.backbones.slots import Prompts, TextPrompts, VisualPrompts
from apd_bench.prompts.base import normal, whole
from apd_bench.prompts.context import ContextLearner


class IndependentLearner(ContextLearner):
    """Deep text prompts and deep visual tokens with nothing in common but the loss.

    Text context starts from the first words of `init`; everything deeper from N(0, 0.02^2). Depths beyond a tower
    mean all of its blocks.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"text_tokens", "deep_text", "visual_tokens"})
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
        self.text_depth = min(whole(options, "text_depth", 1), shapes.text_layers)
        self.visual_depth = min(whole(options, "visual_depth", 1), shapes.visual_layers)
        self.context = nn.Parameter(self._plan(text_tokens).start(self.backbone, self.template, generator))
        self.deep = normal(self.text_depth - 1, text_tokens, shapes.text_width or 0, generator=generator)
        visual_tokens = whole(options, "visual_tokens")
        self.tokens = normal(self.visual_depth, visual_tokens, shapes.visual_width or 0, generator=generator)

    @property
    def effective(self) -> dict[str, Any]:
        """The options with the depths that act."""
        return {**self.options, "text_depth": self.text_depth, "visual_depth": self.visual_depth}

    def forward(self) -> Prompts:
        """Both towers' prompts."""
        return Prompts(
            text=TextPrompts(context=self.context, deep=self.deep, rows=self.rows()),
            visual=VisualPrompts(tokens=self.tokens),
        )
