"""The text side of every learner that learns text: context words at the input, fresh rows in deeper blocks."""

import torch
from torch import Tensor, nn

from apd_bench.prompts.base import INIT_STD, PromptLearner

RANDOM, TEMPLATE, LITERAL = "random", "template", "template-literal"


class ContextLearner(PromptLearner):
    """A learner with n context vectors in the class texts; `init` says how they begin, `position` where they stand.

    `init` is "random" (N(0, 0.02^2)), "template" (the words of the template before the class name), the quirk
    "template-literal" (the template with its braces, as in FAP's code), or a phrase. Of an ensemble the first template
    counts. A phrase with more than n words keeps the others as plain words behind the context, as MaPLe does; missing
    words are drawn at random.
    """

    _rows: Tensor | None = None
    _count: int  # n

    @property
    def phrase(self) -> str:
        """The words that the context starts from and stands in; empty for a random start."""
        init, template = self.options["init"], first_template(self.template)
        starts = {RANDOM: "", TEMPLATE: template.partition("{}")[0].strip(), LITERAL: template}
        return starts.get(init, str(init))

    def _words(self, tokens: int, generator: torch.Generator) -> Tensor:
        """A context [n, Wt] of `tokens` vectors as it begins, on the CPU."""
        self._count = tokens
        drawn = torch.randn(tokens, self.backbone.shapes.text_width or 0, generator=generator) * INIT_STD
        if self.phrase:
            words = self.backbone.embed_words(self.phrase)[:tokens].to("cpu", torch.float32)
            drawn[: len(words)] = words
        return drawn

    def _draw(self, tokens: int, generator: torch.Generator) -> nn.Parameter:
        return nn.Parameter(self._words(tokens, generator))

    @property
    def used_templates(self) -> tuple[str, ...]:
        """The template whose words the context starts from, if it does."""
        return (first_template(self.template),) if self.options["init"] in (TEMPLATE, LITERAL) else ()

    def rows(self) -> Tensor | None:
        """The rows [C, n] of the context vectors in `texts()`; None for 1 .. n."""
        self.texts()
        return self._rows

    def _lay_out(self) -> Tensor:
        """Token ids of the class texts; behind the name stands a full stop, or the template's own ending."""
        suffix = first_template(self.template).partition("{}")[2] if self.options["init"] == TEMPLATE else "."
        position = str(self.options["position"])
        layout = self.backbone.prompt_layout(self.class_names, self._count, position, self.phrase, suffix)
        self._rows = layout.rows
        return layout.tokens


def first_template(template: str) -> str:
    """The template, or the first of an ensemble."""
    return template.partition("\n")[0]
