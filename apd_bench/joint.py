"""Several models of one recipe in one pass: their prompts go into the towers side by side, each with its own part.

The models differ by what was learned (by their seed) and share backbone, classes and the shapes of their prompts. Both
towers see one batch: the texts of all models, and the images of all of them, each text and image with the prompts of
its own model. The logits are one small product for each model, so no model ever sees the classes of another.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from apd_bench.backbones.slots import Prompts, TextPrompts, VisualPrompts
from apd_bench.classifier import BoundModel, Output, PromptedModel


def bind(models: Sequence[PromptedModel]) -> list[BoundModel]:
    """`model.bind()` of each model, with one call of the text tower for all of their classes."""
    prompts: list[Prompts] = [model.learner() for model in models]
    texts = [item.text for item in prompts if item.text is not None]
    if len(texts) < len(models):
        features = [model.text_features(item) for model, item in zip(models, prompts, strict=True)]
    else:
        tokens = [model.learner.texts() for model in models]
        counts = [len(part) for part in tokens]
        encoded = models[0].backbone.encode_text(torch.cat(tokens), _texts(texts, counts))
        features = list(torch.split(functional.normalize(encoded, dim=-1), counts))
    return [BoundModel(model.backbone, item, own) for model, item, own in zip(models, prompts, features, strict=True)]


def predict(models: Sequence[BoundModel], pixels: Sequence[Tensor]) -> list[Output]:
    """The output of each model on its own images [B, 3, H, W], with one call of the image tower for all of them."""
    counts = [len(images) for images in pixels]
    visual = _visuals([model.prompts.visual for model in models], counts)
    encoded = models[0].backbone.encode_image(torch.cat(list(pixels)), visual)
    parts = torch.split(functional.normalize(encoded, dim=-1), counts)
    return [model.output(part) for model, part in zip(models, parts, strict=True)]


def form(model: BoundModel) -> tuple[object, ...]:
    """What must be equal for models to be asked in one pass: which visual prompts there are, and their shapes."""
    visual = model.prompts.visual
    parts = (None, None) if visual is None else (visual.tokens, visual.frame)
    return tuple(None if part is None else tuple(part.shape) for part in parts)


def _texts(texts: Sequence[TextPrompts], counts: Sequence[int]) -> TextPrompts:
    """The prompts of all models, one set for each of their texts."""
    return TextPrompts(
        context=_side_by_side([text.context for text in texts], counts, rank=3, dim=0),
        deep=_side_by_side([text.deep for text in texts], counts, rank=4, dim=1),
        rows=_side_by_side([text.rows for text in texts], counts, rank=2, dim=0),
    )


def _visuals(visuals: Sequence[VisualPrompts | None], counts: Sequence[int]) -> VisualPrompts | None:
    """The prompts of all models, one set for each of their images."""
    given = [visual for visual in visuals if visual is not None]
    if not given:
        return None
    return VisualPrompts(
        tokens=_side_by_side([visual.tokens for visual in given], counts, rank=4, dim=1),
        frame=_side_by_side([visual.frame for visual in given], counts, rank=4, dim=0),
    )


def _side_by_side(values: Sequence[Tensor | None], counts: Sequence[int], *, rank: int, dim: int) -> Tensor | None:
    """The models' values in one tensor of `rank` dimensions, each repeated along `dim` for its texts or images."""
    given = [value for value in values if value is not None]
    if not given:
        return None
    spread = []
    for value, count in zip(given, counts, strict=True):
        if value.ndim < rank:
            value = value.unsqueeze(dim)
            value = value.expand(*value.shape[:dim], count, *value.shape[dim + 1 :])
        spread.append(value)
    return torch.cat(spread, dim=dim)
