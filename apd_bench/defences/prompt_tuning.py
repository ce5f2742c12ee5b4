"""What the defences that tune text prompts for every image share: one AdamW step on the entropy of confident views."""

from __future__ import annotations

from typing import ClassVar, cast

import torch
from torch import Tensor
from torch.nn.functional import normalize

from apd_bench.backbones.slots import TextPrompts
from apd_bench.core.errors import IncompatibleChoice
from apd_bench.defences.mean_views import OfViews
from apd_bench.defences.views import View
from apd_bench.prompts.base import PromptLearner
from apd_bench.prompts.context import first_template
from apd_bench.prompts.text import TextLearner

_ADAMW_EPS, _ADAMW_DECAY = 1e-8, 1e-2  # torch's defaults, which TPT, R-TPT and TAPT leave


class PromptTuning(OfViews):
    """A context [n, Wt] that is tuned for every image, from where the model's own context or its template stands.

    Deep text prompts of the model stay as they are. `self.tokens` [C, L] are the class texts with room for the context.
    """

    gradients: ClassVar[tuple[str, ...]] = ("replay", "unrolled")

    def prepare(self) -> None:
        """Lays out the class texts."""
        super().prepare()
        learner = _with_context(self.classifier.learner, type(self).__name__)
        with torch.no_grad():
            self.text = cast("TextPrompts", learner().text).detach()
            self.context, self.tokens = cast("Tensor", self.text.context), learner.texts()
            if not torch.allclose(self.encode(self.context[None])[0], self.classifier.text_features, atol=1e-3):
                raise IncompatibleChoice(
                    f"{type(self).__name__} tunes one context, and this model's class texts are no texts with one.",
                    hint="A set with several templates takes one: SET(template='a photo of a {}.').",
                )
        self.texts = 0

    def encode(self, context: Tensor) -> Tensor:
        """Normalised class texts [B, C, D] with a context [B, ...] for every image."""
        count, classes = len(context), len(self.tokens)
        shared = context if context.ndim == 4 else context[:, None].expand(-1, classes, -1, -1)
        deep, rows = self.text.deep, self.text.rows
        prompts = TextPrompts(
            shared.flatten(0, 1),
            deep if deep is None or deep.ndim == 3 else deep.repeat(1, count, 1, 1),
            None if rows is None else rows.repeat(count, 1),
        )
        w = self.classifier.backbone.encode_text(self.tokens.repeat(count, 1), prompts)
        self.texts += len(w)
        return normalize(w, dim=-1).view(count, classes, -1)

    def scale(self, z: Tensor, w: Tensor) -> Tensor:
        """Logits [B, V, C] of normalised view features [B, V, D] and class texts [B, C, D]."""
        backbone = self.classifier.backbone
        return backbone.logit_scale * z @ w.transpose(1, 2) + backbone.logit_bias

    def tuned(self, z: Tensor) -> Tensor:
        """Class texts [B, C, D] after one step on the loss of the most confident of the views z [B, V, D]."""

        def loss(context: Tensor) -> Tensor:
            logits = self.scale(z, self.encode(context))
            sure = surest(logits, self.options["share"])
            return self.loss(logits.gather(1, sure[..., None].expand(-1, -1, logits.shape[2])))

        P = self.context.expand(len(z), *self.context.shape)
        g = self.gradient(loss, P)
        return self.constant(self.encode(adamw(P, g, self.options["rate"])))

    def loss(self, logits: Tensor) -> Tensor:
        """What the step descends [B], for the logits [B, S, C] of the confident views."""
        raise NotImplementedError

    def view_features(self, x: Tensor, views: list[View]) -> Tensor:
        """Normalised features [B, V, D] of the image and its views."""
        seen = self.seen(x, views)
        return normalize(self.features(seen.flatten(0, 1)), dim=-1).view(*seen.shape[:2], -1)


def entropy(logits: Tensor) -> Tensor:
    """H(softmax) over the last dimension."""
    return -(logits.softmax(-1) * logits.log_softmax(-1)).sum(-1)


def surest(logits: Tensor, share: float) -> Tensor:
    """The places [B, S] of a share of the views, at least one, whose logits [B, V, C] have the least entropy."""
    count = max(int(logits.shape[1] * share), 1)
    return entropy(logits).topk(count, dim=1, largest=False).indices


def mean_entropy(logits: Tensor) -> Tensor:
    """H(mean_v p_v) [B] of logits [B, V, C]."""
    p = logits.softmax(-1).mean(1)
    return -(p * p.clamp_min(1e-12).log()).sum(-1)


def adamw(p: Tensor, g: Tensor, rate: float) -> Tensor:
    """The first AdamW step from p: both moments are those of g alone, so it is p (1 - ηλ) - η g / (|g| + ε)."""
    return p * (1 - rate * _ADAMW_DECAY) - rate * g / (g.abs() + _ADAMW_EPS)


def _with_context(learner: PromptLearner | None, name: str) -> PromptLearner:
    """The model's learner where it has a text context, else one whose context is the words of its template."""
    if learner is None:
        raise IncompatibleChoice(f"{name} tunes text prompts, and nothing says what the model's class texts are.")
    with torch.no_grad():
        text = learner().text
    if text is not None and text.context is not None:
        return learner
    template = next(iter(learner.used_templates), "") or first_template(learner.template)
    words = len(learner.backbone.embed_words(template.partition("{}")[0]))
    if not words:
        raise IncompatibleChoice(
            f"The class text '{template}' has no words before the name that {name} could tune.",
            hint="Give the set another: SET(template='a photo of a {}.').",
        )
    options = {"tokens": words, "init": "template"}
    return TextLearner(learner.backbone, learner.class_names, template, options, torch.Generator())
