"""Checks a finished fit for collapse to chance and for a consistency term that vanished.

Nothing here is a reported accuracy: it sees the training images alone.
"""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from apd_bench.prompts.classifier import BoundModel
from apd_bench.training.augment import TrainingImages

WATCHED_IMAGES = 512
TRIVIAL_KL = 1e-3


def watch(
    images: TrainingImages, model: BoundModel, history: Sequence[Mapping[str, Any]], failure: str
) -> dict[str, Any]:
    """The entries of a card: `collapsed`, `train_accuracy`, `chance`, `warnings`.

    A fit is collapsed when it stopped early (`failure` says why) or when the clean accuracy on its own images lies
    within 2 standard errors of chance and below the middle between chance and 1: a few images leave no room for the
    errors, and a perfect fit is none. A KL term near 0 beside a cross-entropy near chance is the trivial solution that
    FAP describes (NeurIPS 2024, Figures 4 and 5): the prompts make clean and adversarial logits equal.
    """
    total = len(images.labels)
    count = min(total, WATCHED_IMAGES)
    indexes = torch.linspace(0, total - 1, count).round().long()
    with torch.no_grad():
        right = sum(
            int((model(images(part)).logits.argmax(dim=1) == images.labels[part.to(images.device)]).sum())
            for part in torch.split(indexes, 128)
        )
    classes = len(model.text_features)
    accuracy, chance = right / count, 1 / classes
    warnings = [failure] if failure else []
    last = history[-1]
    entropy = max((value for name, value in last.items() if name.startswith("ce_")), default=0.0)
    consistency = [value for name, value in last.items() if name.startswith("kl_")]
    if consistency and min(consistency) < TRIVIAL_KL and entropy > 0.8 * math.log(classes):
        warnings.append("the KL term vanished while the cross-entropy stayed near chance: a trivial solution")
    return {
        "collapsed": bool(failure) or near_chance(accuracy, chance, count),
        "train_accuracy": round(accuracy, 4),
        "chance": round(chance, 4),
        "warnings": warnings,
    }


def near_chance(accuracy: float, chance: float, count: int) -> bool:
    """Whether an accuracy over `count` images cannot be told from chance and is not half-way to 1."""
    return accuracy <= chance + 2 * math.sqrt(chance * (1 - chance) / count) and 2 * accuracy < 1 + chance
