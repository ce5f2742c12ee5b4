"""Learned text context: CoOp (Zhou et al., IJCV 2022), the learner of APT / AdvTP (Li et al., CVPR 2024)."""

from collections.abc import Collection, Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import nn

from apd_bench.backbones.slots import Prompts, TextPrompts
from apd_bench.core.errors import IncompatibleChoice
from apd_bench.prompts.base import flag, normal, whole
from apd_bench.prompts.catalog import NEEDS
from apd_bench.prompts.context import ContextLearner


class TextLearner(ContextLearner):
    """Context vectors [n, Wt], or class-wise [C, n, Wt], and with `depth` > 1 fresh rows in the next blocks.

    The sequence is `[SOS] v_1 .. v_n name . [EOS]` (CoOp, section 3.1; `position` moves the name). A `depth` beyond
    the tower means all of its blocks.
    """

    needs: ClassVar[Collection[str]] = NEEDS["text"]
    defaults: ClassVar[Mapping[str, Any]] = {
        "tokens": 16,
        "position": "end",
        "init": "random",
        "class_specific": False,
        "depth": 1,
    }

    def start(self, generator: torch.Generator) -> None:
        """Draws the context, unified or class-wise, and the deep rows."""
        tokens, width = whole(self.options, "tokens"), self.backbone.shapes.text_width or 0
        depth = self.blocks("depth", self.backbone.shapes.text_layers)
        context = self._words(tokens, generator)
        if flag(self.options, "class_specific"):
            context = torch.stack([context, *(self._words(tokens, generator) for _ in self.class_names[1:])])
        self.context = nn.Parameter(context)
        self.deep = normal(depth - 1, tokens, width, generator=generator) if depth > 1 else None

    def forward(self) -> Prompts:
        """The context at its rows and the deep rows."""
        return Prompts(text=TextPrompts(context=self.context, deep=self.deep, rows=self.rows()))

    def rebind(self, class_names: Sequence[str], template: str | None = None) -> None:
        """Carries the context to other classes; class-wise context has none for a class it was not learned for."""
        if flag(self.options, "class_specific"):
            unknown = [name for name in class_names if name not in self.class_names]
            if unknown:
                raise IncompatibleChoice(
                    f"Class-wise context was learned for {len(self.class_names)} classes and has none for "
                    f"'{unknown[0]}' ({len(unknown)} such).",
                    hint="Use unified context (class_specific = false) for classes that were not trained on.",
                )
            index = [self.class_names.index(name) for name in class_names]
            self.context = nn.Parameter(self.context.detach()[index])
        super().rebind(class_names, template)
