"""Refuses pixels, labels and logits that would make an attack's answer wrong: one message each, before any time."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from apd_bench.errors import UsageError

RANGE_TOLERANCE = 1e-6


def check_pixels(images: Any) -> Tensor:
    """`images` as detached, contiguous float32 [B, C, H, W] in [0,1]; raises UsageError for anything else."""
    if not isinstance(images, Tensor):
        raise UsageError(f"Pixels are a {type(images).__name__}, not a torch tensor [B, C, H, W].")
    pixels: Tensor = images
    if not pixels.is_floating_point():
        raise UsageError(
            f"Pixels are {pixels.dtype}: attacks need numbers between 0 and 1.", hint="Pass pixels.float() / 255."
        )
    if pixels.ndim != 4:
        raise UsageError(f"Pixels have the shape {list(pixels.shape)}; a batch is [B, C, H, W].")
    pixels = pixels.detach().to(torch.float32, memory_format=torch.contiguous_format)
    if not pixels.numel():
        return pixels
    low, high = (float(value) for value in pixels.aminmax())
    if not (low >= -RANGE_TOLERANCE and high <= 1 + RANGE_TOLERANCE):
        raise UsageError(
            f"Pixels reach from {low:.4g} to {high:.4g}; they have to be finite and within [0, 1].",
            hint="Divide by 255." if high > 10 else "Pass images as they are; normalise inside the model.",
        )
    return pixels.clamp(0, 1)


def check_labels(classes: Any, count: int, device: torch.device) -> Tensor:
    """`classes` as int64 [B] on `device`; raises UsageError when they are not whole numbers, one per image."""
    if not isinstance(classes, Tensor) or classes.is_floating_point() or classes.is_complex():
        raise UsageError("Labels have to be a tensor of whole numbers, one per image.", hint="Pass labels.long().")
    labels: Tensor = classes
    if labels.shape != (count,):
        raise UsageError(f"Labels have the shape {list(labels.shape)}, but there are {count} images.")
    return labels.detach().to(device=device, dtype=torch.int64)


def check_classes(labels: Tensor, num_classes: int) -> None:
    """Raises UsageError for labels that the model has no logit for."""
    if not len(labels):
        return
    low, high = int(labels.min()), int(labels.max())
    if low < 0 or high >= num_classes:
        raise UsageError(
            f"Label {low if low < 0 else high} is out of range: the model has {num_classes} classes, "
            f"0 to {num_classes - 1}.",
            hint="Map the labels to the order of the model's classes.",
        )


def check_logits(logits: Any, count: int, *, expected: int = 0) -> int:
    """The number of classes in `logits`; raises UsageError unless they are finite logits [count, K >= 2]."""
    if not isinstance(logits, Tensor):
        raise UsageError(f"The model returned a {type(logits).__name__}, not a tensor of logits [B, K].")
    if logits.ndim != 2 or len(logits) != count or (expected and logits.shape[1] != expected):
        wanted = f"[{count}, {expected or 'K'}]"
        raise UsageError(f"The model returned the shape {list(logits.shape)}; logits are {wanted}.")
    if not logits.is_floating_point():
        raise UsageError(f"The model returned {logits.dtype}, not floating-point logits.")
    if logits.shape[1] < 2:
        raise UsageError(
            "The model has fewer than two classes: there is nothing to confuse.",
            hint="Return one logit for each class, also when there are two: [-z / 2, z / 2].",
        )
    return int(logits.shape[1])


def check_clean_logits(logits: Tensor) -> None:
    """Raises UsageError when logits [B, K] of unchanged images are not finite or are probabilities."""
    if not len(logits):
        return
    if not bool(logits.isfinite().all()):
        raise UsageError("The model returns NaN or infinite logits for unchanged images.", hint="Mend the model first.")
    low, high = (float(value) for value in logits.aminmax())
    if low >= 0 and high <= 1 + 1e-5 and bool(((logits.sum(1) - 1).abs() < 1e-5).all()):
        raise UsageError(
            "The model returns probabilities; attacks on them saturate and prove nothing.",
            hint="Return the logits before the softmax.",
        )
