"""Learned visual tokens: VPT (Jia et al., ECCV 2022) in the form of MaPLe's code, the learner of AdvVPT."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch

from apd_bench.backbones.slots import Prompts, VisualPrompts
from apd_bench.prompts.base import PromptLearner, normal, whole
from apd_bench.prompts.catalog import NEEDS


class VisualLearner(PromptLearner):
    """Visual tokens [d, n, Wv] from N(0, 0.02^2). Depth 1 is shallow, one beyond the tower means all of its blocks.

    `text` is the text of every class, with {} for its name, whatever the set; empty means the set's template.
    """

    needs: ClassVar[Collection[str]] = NEEDS["visual"]
    defaults: ClassVar[Mapping[str, Any]] = {"tokens": 8, "depth": 12, "text": ""}

    def start(self, generator: torch.Generator) -> None:
        """Draws the tokens of every block."""
        shapes = self.backbone.shapes
        depth = self.blocks("depth", shapes.visual_layers)
        tokens = whole(self.options, "tokens")
        self.tokens = normal(depth, tokens, shapes.visual_width or 0, generator=generator)

    def forward(self) -> Prompts:
        """The visual tokens of every block."""
        return Prompts(visual=VisualPrompts(tokens=self.tokens))
