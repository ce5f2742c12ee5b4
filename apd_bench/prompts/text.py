"""Learned text context: CoOp (Zhou et al., IJCV 2022), the learner of APT / AdvTP (Li et al., CVPR 2024)."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, ClassVar

import torch
from torch import Tensor, nn

from apd_bench.backbones.slots import Prompts, TextPrompts
from apd_bench.errors import IncompatibleChoice
from apd_bench.prompts.base import PromptLearner, normal, whole
from apd_bench.prompts.context import ContextPlan


class TextLearner(PromptLearner):
    """Context vectors [n, Wt], or class-wise [C, n, Wt], and with `depth` > 1 fresh rows in the next blocks.

    The sequence is `[SOS] v_1 .. v_n name . [EOS]` (CoOp, section 3.1; `position` moves the name). A `depth` beyond
    the tower means all of its blocks.
    """

    needs: ClassVar[frozenset[str]] = frozenset({"text_tokens"})
    defaults: ClassVar[Mapping[str, Any]] = {
        "tokens": 16,
        "position": "end",
        "init": "random",
        "class_specific": False,
        "depth": 1,
    }

    def _start(self, generator: torch.Generator) -> None:
        tokens = whole(self.options, "tokens")
        self.plan = ContextPlan(tokens, self.options["init"], self.options["position"])
        self.depth = min(whole(self.options, "depth", 1), self.backbone.shapes.text_layers)
        self.context = nn.Parameter(self.plan.start(self.backbone, self.template, generator))
        width = self.backbone.shapes.text_width or 0
        self.deep = normal(self.depth - 1, tokens, width, generator=generator) if self.depth > 1 else None
        self._generator = generator
        self._rows: Tensor | None = None

    @property
    def effective(self) -> dict[str, Any]:
        """The options with the depth that acts."""
        return {**self.options, "depth": self.depth}

    def forward(self) -> Prompts:
        """The context at its rows and the deep rows."""
        self.texts()
        return Prompts(text=TextPrompts(context=self.context, deep=self.deep, rows=self._rows))

    def _lay_out(self) -> Tensor:
        layout = self.plan.layout(self.backbone, self.class_names, self.template)
        self._rows = layout.rows
        return layout.tokens

    def _name_classes(self, class_names: Sequence[str]) -> None:
        if self.options["class_specific"]:
            self._follow_classes(class_names)
        super()._name_classes(class_names)

    def _follow_classes(self, class_names: Sequence[str]) -> None:
        """Class-wise context: one per class at first, afterwards only those of known classes."""
        if not self.class_names:
            start = self.context.detach()
            if self.options["init"] == "random":
                rest = normal(len(class_names) - 1, *start.shape, generator=self._generator).detach()
                self.context = nn.Parameter(torch.cat([start[None], rest.to(start.device)]))
            else:
                self.context = nn.Parameter(start.expand(len(class_names), -1, -1).clone())
            return
        unknown = [name for name in class_names if name not in self.class_names]
        if unknown:
            raise IncompatibleChoice(
                f"Class-wise context was learned for {len(self.class_names)} classes and has none for "
                f"'{unknown[0]}' ({len(unknown)} such).",
                hint="Use unified context (class_specific = false) for classes that were not trained on.",
            )
        index = [self.class_names.index(name) for name in class_names]
        self.context = nn.Parameter(self.context.detach()[index])
