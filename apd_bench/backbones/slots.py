"""What a prompt can be and where it goes: plain tensors between a learner and a backbone.

Shapes: C classes, n prompt length, d prompt depth, Wv and Wt the widths of the image and the text tower.
"""

from dataclasses import dataclass, replace
from typing import TypeVar

from torch import Tensor

SlotsT = TypeVar("SlotsT", bound="_Slots")


@dataclass(frozen=True)
class _Slots:
    def detach(self: SlotsT) -> SlotsT:
        """The same prompts without a graph: what an attack or a teacher sees."""
        return replace(self, **{name: value.detach() for name, value in vars(self).items() if value is not None})


@dataclass(frozen=True)
class TextPrompts(_Slots):
    """Learned vectors in the token sequence of every class text.

    `context` [n, Wt] or class-wise [C, n, Wt] replaces the word embeddings of `rows` before the positional embedding
    is added; `deep` [d-1, n, Wt] or class-wise [d-1, C, n, Wt] replaces the same rows at the entry of block 1 .. d-1.
    `rows` [C, n] counts from the start token (row 0); None means the rows 1 .. n right after it.
    """

    context: Tensor | None = None
    deep: Tensor | None = None
    rows: Tensor | None = None

    def classes(self, start: int, stop: int) -> "TextPrompts":
        """The prompts of the classes `start` .. `stop`-1."""
        context, deep = self.context, self.deep
        if context is not None and context.ndim == 3:
            context = context[start:stop]
        if deep is not None and deep.ndim == 4:
            deep = deep[:, start:stop]
        return replace(self, context=context, deep=deep, rows=None if self.rows is None else self.rows[start:stop])


@dataclass(frozen=True)
class VisualPrompts(_Slots):
    """Learned vectors in the image tower's token sequence and a learned pixel frame.

    `tokens` [d, n, Wv], or one set for each image [d, B, n, Wv]: `tokens[0]` is appended after the patches, behind the
    positional embedding and before `ln_pre`; `tokens[l]` replaces the prompt positions at the entry of block l.
    `frame` [3, H, W], or [B, 3, H, W], is added to the normalised pixels and is zero inside.
    """

    tokens: Tensor | None = None
    frame: Tensor | None = None


@dataclass(frozen=True)
class Prompts(_Slots):
    """What a learner hands to a backbone; None leaves that tower as it is."""

    text: TextPrompts | None = None
    visual: VisualPrompts | None = None


@dataclass(frozen=True)
class Shapes:
    """What a backbone offers, as plain data; the widths are None where a tower takes no prompts."""

    image_size: int
    embed_dim: int
    visual_width: int | None
    text_width: int | None
    visual_layers: int
    text_layers: int
    context_length: int
    offers: frozenset[str]
