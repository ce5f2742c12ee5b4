"""Context that depends on the image: CoCoOp (Zhou et al., CVPR 2022)."""

from collections.abc import Collection, Mapping
from typing import Any, ClassVar

import torch
from torch import Tensor
from torch.nn import functional

from apd_bench.backbones.slots import TextPrompts
from apd_bench.prompts.base import whole
from apd_bench.prompts.catalog import NEEDS
from apd_bench.prompts.context import ContextLearner
from apd_bench.prompts.coupled import Projection


class ConditionalLearner(ContextLearner):
    """Context vectors [n, Wt], all shifted by `up(relu(down(z)))` of the image's normalised feature z [D].

    Every image has class texts of its own, so the text tower stands in the path from pixels to logits: a prediction and
    an attack run it for each image. `hidden` is the width between the two maps; 0 means D / 16, as in CoCoOp's code. It
    is evaluated here, not trained.
    """

    by_image: ClassVar[bool] = True
    needs: ClassVar[Collection[str]] = NEEDS["conditional"]
    defaults: ClassVar[Mapping[str, Any]] = {"tokens": 4, "init": "a photo of a", "position": "end", "hidden": 0}

    def start(self, generator: torch.Generator) -> None:
        """Draws the context and the two maps."""
        shapes = self.backbone.shapes
        tokens = whole(self.options, "tokens", 1)
        hidden = whole(self.options, "hidden") or max(1, shapes.embed_dim // 16)
        self.context = self._draw(tokens, generator)
        self.down = Projection(1, shapes.embed_dim, hidden, generator)
        self.up = Projection(1, hidden, shapes.text_width or 0, generator)

    def text_features(self, image_features: Tensor) -> Tensor:
        """Normalised text features [B, C, D] for normalised image features [B, D]."""
        shift = self.up(functional.relu(self.down(image_features.unsqueeze(0))))[0]
        contexts = self.context + shift.unsqueeze(1)
        tokens, rows = self.texts(), self.rows()
        images, classes = len(image_features), len(tokens)
        text = TextPrompts(
            context=contexts.repeat_interleave(classes, dim=0), rows=None if rows is None else rows.repeat(images, 1)
        )
        features = self.backbone.encode_text(tokens.repeat(images, 1), text, checkpoint=True)
        return functional.normalize(features.float(), dim=-1).view(images, classes, -1)
