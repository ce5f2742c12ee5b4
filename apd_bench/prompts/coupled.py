"""Coupled prompts: MaPLe (Khattak et al., CVPR 2023), the learner of AdvMaPLe, and FAP (Zhou et al., NeurIPS 2024)."""

import math
from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import nn

from apd_bench.backbones.slots import Prompts, TextPrompts, VisualPrompts
from apd_bench.prompts.base import normal, whole
from apd_bench.prompts.catalog import NEEDS
from apd_bench.prompts.context import ContextLearner


class Projection(nn.Module):
    """One linear map for each of `count` layers, [count, n, from] -> [count, n, to], drawn as torch draws a Linear.

    All maps start equal, as the deep copies in MaPLe's code do.
    """

    def __init__(self, count: int, width_from: int, width_to: int, generator: torch.Generator) -> None:
        super().__init__()
        bound = 1 / math.sqrt(width_from)
        weight = torch.empty(width_to, width_from).uniform_(-bound, bound, generator=generator)
        bias = torch.empty(width_to).uniform_(-bound, bound, generator=generator)
        self.weight = nn.Parameter(weight.expand(count, -1, -1).clone())
        self.bias = nn.Parameter(bias.expand(count, -1).clone())

    def forward(self, prompts: torch.Tensor) -> torch.Tensor:
        """Prompts [count, n, from] of one tower -> prompts [count, n, to] of the other."""
        return torch.baddbmm(self.bias.unsqueeze(1), prompts, self.weight.transpose(1, 2))


class CoupledLearner(ContextLearner):
    """Text prompts are learned; the visual prompt of layer l is `F_l(text prompt of l)` (MaPLe, section 3.2).

    `F_0` is drawn by itself, `F_1 .. F_{d-1}` start as copies of one another. The prompts of the two towers come in
    pairs, so a `depth` beyond the shallower tower means all of its blocks.
    """

    needs: ClassVar[Collection[str]] = NEEDS["coupled"]
    defaults: ClassVar[Mapping[str, Any]] = {"tokens": 2, "depth": 9, "init": "a photo of a", "position": "end"}

    def start(self, generator: torch.Generator) -> None:
        """Draws the text prompts and the projections."""
        self.deep = self._start(generator, from_text=True)

    def forward(self) -> Prompts:
        """The text prompts and their images in the visual tower."""
        return self._pair(self.deep, self.further(self.deep))

    def _start(self, generator: torch.Generator, *, from_text: bool) -> nn.Parameter:
        """Draws the context, the prompts [d-1, n, width] of the blocks behind the first, and all projections."""
        shapes, tokens = self.backbone.shapes, whole(self.options, "tokens", 1)
        text, visual = shapes.text_width or 0, shapes.visual_width or 0
        source, target = (text, visual) if from_text else (visual, text)
        depth = self.blocks("depth", shapes.text_layers, shapes.visual_layers)
        self.context = self._draw(tokens, generator)
        deep = normal(depth - 1, tokens, source, generator=generator)
        self.first = Projection(1, text, visual, generator)
        self.further = Projection(depth - 1, source, target, generator)
        return deep

    def _pair(self, text: torch.Tensor, visual: torch.Tensor) -> Prompts:
        """Both towers' prompts from those of the blocks behind the first, [d-1, n, Wt] and [d-1, n, Wv]."""
        tokens = torch.cat([self.first(self.context.unsqueeze(0)), visual])
        return Prompts(TextPrompts(self.context, text, self.rows()), VisualPrompts(tokens))


class FapLearner(CoupledLearner):
    """Deep visual prompts are learned; the text prompt of layer l >= 1 is `G_l(visual prompt of l)`.

    In the first layer the direction is MaPLe's, as in FAP's released code: text context is learned and its visual
    counterpart is `F_0(context)`. The paper's figure shows image to text throughout.
    """

    defaults: ClassVar[Mapping[str, Any]] = {"tokens": 2, "depth": 9, "init": "template-literal", "position": "end"}

    def start(self, generator: torch.Generator) -> None:
        """Draws the prompts and the projections."""
        self.tokens = self._start(generator, from_text=False)

    def forward(self) -> Prompts:
        """The visual prompts and their images in the text tower."""
        return self._pair(self.further(self.tokens), self.tokens)
