"""Coupled prompts, text to image: MaPLe (Khattak et al., CVPR 2023), the learner of AdvMaPLe."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from apd_bench.backbones.slots import Prompts, TextPrompts, VisualPrompts
from apd_bench.prompts.base import normal, whole
from apd_bench.prompts.context import ContextLearner
from apd_bench.prompts.projection import Projection


class CoupledLearner(ContextLearner):
    """Text prompts are learned; the visual prompt of layer l is `F_l(text prompt of l)` (section 3.2).

    `F_0` is drawn by itself, `F_1 .. F_{d-1}` start as copies of one another. The prompts of the two towers come in
    pairs, so a `depth` beyond the shallower tower means all of its blocks.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"text_tokens", "deep_text", "visual_tokens"})
    defaults: ClassVar[Mapping[str, Any]] = {"tokens": 2, "depth": 9, "init": "a photo of a", "position": "end"}

    def start(self, generator: torch.Generator) -> None:
        """Draws the text prompts and the projections."""
        shapes, tokens = self.backbone.shapes, whole(self.options, "tokens", 1)
        text_width, visual_width = shapes.text_width or 0, shapes.visual_width or 0
        self.depth = min(whole(self.options, "depth", 1), shapes.text_layers, shapes.visual_layers)
        self.context = nn.Parameter(self._plan(tokens).start(self.backbone, self.template, generator))
        self.deep = normal(self.depth - 1, tokens, text_width, generator=generator)
        self.first = Projection(1, text_width, visual_width, generator)
        self.further = Projection(self.depth - 1, text_width, visual_width, generator)

    @property
    def effective(self) -> dict[str, Any]:
        """The options with the depth that acts."""
        return {**self.options, "depth": self.depth}

    def forward(self) -> Prompts:
        """The text prompts and their images in the visual tower."""
        tokens = torch.cat([self.first(self.context.unsqueeze(0)), self.further(self.deep)])
        text = TextPrompts(context=self.context, deep=self.deep, rows=self.rows())
        return Prompts(text=text, visual=VisualPrompts(tokens=tokens))
