"""Coupled prompts, image to text: the learner of FAP (Zhou et al., NeurIPS 2024)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from apd_bench.backbones.slots import Prompts, TextPrompts, VisualPrompts
from apd_bench.prompts.base import normal, whole
from apd_bench.prompts.context import ContextLearner
from apd_bench.prompts.projection import Projection


class FapLearner(ContextLearner):
    """Deep visual prompts are learned; the text prompt of layer l >= 1 is `G_l(visual prompt of l)`.

    In the first layer the direction is MaPLe's, as in the released code: text context is learned and its visual
    counterpart is `F_0(context)`. The paper's figure shows image to text throughout. A `depth` beyond the shallower
    tower means all of its blocks.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"text_tokens", "deep_text", "visual_tokens"})
    defaults: ClassVar[Mapping[str, Any]] = {"tokens": 2, "depth": 9, "init": "template-literal", "position": "end"}

    def start(self, generator: torch.Generator) -> None:
        """Draws the prompts and the projections."""
        shapes, tokens = self.backbone.shapes, whole(self.options, "tokens", 1)
        text_width, visual_width = shapes.text_width or 0, shapes.visual_width or 0
        self.depth = min(whole(self.options, "depth", 1), shapes.text_layers, shapes.visual_layers)
        self.context = nn.Parameter(self._plan(tokens).start(self.backbone, self.template, generator))
        self.tokens = normal(self.depth - 1, tokens, visual_width, generator=generator)
        self.first = Projection(1, text_width, visual_width, generator)
        self.further = Projection(self.depth - 1, visual_width, text_width, generator)

    @property
    def effective(self) -> dict[str, Any]:
        """The options with the depth that acts."""
        return {**self.options, "depth": self.depth}

    def forward(self) -> Prompts:
        """The visual prompts and their images in the text tower."""
        tokens = torch.cat([self.first(self.context.unsqueeze(0)), self.tokens])
        text = TextPrompts(context=self.context, deep=self.further(self.tokens), rows=self.rows())
        return Prompts(text=text, visual=VisualPrompts(tokens=tokens))
