"""The text side of every learner that learns text: context words at the input, fresh rows in deeper blocks."""

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.tokens import PromptLayout
from apd_bench.prompts.base import INIT_STD, PromptLearner

RANDOM, TEMPLATE, LITERAL = "random", "template", "template-literal"


@dataclass(frozen=True)
class ContextPlan:
    """How `tokens` context vectors begin and where they stand.

    `init` is "random" (N(0, 0.02^2)), "template" (the words of the template before the class name), the quirk
    "template-literal" (the template with its braces, as in FAP's code), or a phrase. Of an ensemble the first template
    counts. A phrase with more words than `tokens` keeps the others as plain words behind the context, as MaPLe does;
    missing words are drawn at random.
    """

    tokens: int
    init: str
    position: str = "end"

    def phrase(self, template: str) -> str:
        """The words that the context starts from and stands in; empty for a random start."""
        template = first_template(template)
        if self.init == RANDOM:
            return ""
        if self.init == TEMPLATE:
            return template.partition("{}")[0].strip()
        return template if self.init == LITERAL else self.init

    def start(self, backbone: Backbone, template: str, generator: torch.Generator) -> Tensor:
        """The initial context [n, Wt] on the CPU."""
        width = backbone.shapes.text_width or 0
        drawn = torch.randn(self.tokens, width, generator=generator) * INIT_STD
        phrase = self.phrase(template)
        if phrase:
            words = backbone.embed_words(phrase)[: self.tokens].to("cpu", torch.float32)
            drawn[: len(words)] = words
        return drawn

    def layout(self, backbone: Backbone, class_names: Sequence[str], template: str) -> PromptLayout:
        """Token ids and context rows; behind the name stands a full stop, or the template's own ending."""
        suffix = first_template(template).partition("{}")[2] if self.init == TEMPLATE else "."
        return backbone.prompt_layout(class_names, self.tokens, self.position, self.phrase(template), suffix)


class ContextLearner(PromptLearner):
    """A learner with text context: lays out the class texts with room for it (options `init` and `position`)."""

    _rows: Tensor | None = None

    def _plan(self, tokens: int) -> ContextPlan:
        """Where `tokens` context vectors begin and stand; call it once, when the parameters are made."""
        self.plan = ContextPlan(tokens, str(self.options["init"]), str(self.options["position"]))
        return self.plan

    def _draw(self, tokens: int, generator: torch.Generator) -> nn.Parameter:
        """The context [n, Wt] as it begins."""
        return nn.Parameter(self._plan(tokens).start(self.backbone, self.template, generator))

    @property
    def used_templates(self) -> tuple[str, ...]:
        """The template whose words the context starts from, if it does."""
        return (first_template(self.template),) if self.plan.init in (TEMPLATE, LITERAL) else ()

    def rows(self) -> Tensor | None:
        """The rows [C, n] of the context vectors in `texts()`; None for 1 .. n."""
        self.texts()
        return self._rows

    def _lay_out(self) -> Tensor:
        layout = self.plan.layout(self.backbone, self.class_names, self.template)
        self._rows = layout.rows
        return layout.tokens


def first_template(template: str) -> str:
    """The template, or the first of an ensemble."""
    return template.partition("\n")[0]
