"""Refuses pixels, labels and logits that would make an attack's answer wrong: one message each, before any time."""

import re
from typing import Any

import torch
from torch import Tensor, nn

from apd_bench.core.errors import UsageError

RANGE_TOLERANCE = 1e-6
_SUM, _SHORT_SUM = 1e-5, 4e-3  # how far from 1 a softmax may add up: in float32, in half precision (bfloat16: 2^-8)


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
        hint = "Pass batches, such as those of a DataLoader." if pixels.ndim == 3 else ""
        raise UsageError(f"Pixels have the shape {list(pixels.shape)}; a batch is [B, C, H, W].", hint=hint)
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
        hint = "Pass labels.argmax(1)." if labels.ndim == 2 and len(labels) == count else ""
        raise UsageError(f"Labels have the shape {list(labels.shape)}, but there are {count} images.", hint=hint)
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


def check_batch_size(size: Any) -> int | None:
    """`size` if it is None (all images at once) or a whole number of at least 1; raises UsageError otherwise."""
    if size is not None and (not isinstance(size, int) or isinstance(size, bool) or size < 1):
        raise UsageError(
            f"A batch size is a whole number of at least 1, not {size!r}.", hint="Leave it out for all images at once."
        )
    return size


def check_clean_logits(logits: Tensor) -> None:
    """Raises UsageError when logits [B, K] of unchanged images are not finite or are probabilities."""
    if not len(logits):
        return
    if not bool(logits.isfinite().all()):
        raise UsageError("The model returns NaN or infinite logits for unchanged images.", hint="Mend the model first.")
    short = any(bool((logits.to(kind).float() == logits).all()) for kind in (torch.float16, torch.bfloat16))
    off = (logits.sum(1) - 1).abs().max()
    if in_unit_interval(logits) and float(off) < (_SHORT_SUM if short else _SUM):
        raise UsageError(
            "The model returns probabilities; attacks on them saturate and prove nothing.",
            hint="Return the logits before the softmax.",
        )


def in_unit_interval(logits: Tensor) -> bool:
    """Whether all of `logits` [B, K] lie in [0,1], as after a sigmoid or a softmax."""
    low, high = (float(value) for value in logits.aminmax())
    return low >= 0 and high <= 1 + _SUM


def model_problem(error: RuntimeError, model: Any, device: torch.device) -> UsageError | None:
    """Why a model cannot take float32 pixels on `device`, with the mend; None where `error` has another reason."""
    text = str(error)
    parameters = list(model.parameters()) if isinstance(model, nn.Module) else []
    kinds = {item.dtype for item in parameters if item.is_floating_point()}
    kind = str(next(iter(kinds))).removeprefix("torch.") if len(kinds) == 1 else "another precision"
    if re.search(r"same dtype|scalar type|bias type|weight type|not implemented for 'Half'", text):
        to = {"float64": "double", "bfloat16": "bfloat16"}.get(kind, "half")
        return UsageError(
            f"The model computes in {kind}; attacks hand it float32 pixels.",
            hint=f"Pass model.float(), or convert inside: lambda x: model(x.{to}()).float().",
        )
    if re.search(r"same device|on device|expected device", text):
        places = ", ".join(sorted({str(item.device) for item in parameters})) or "another device"
        return UsageError(
            f"The model lies on {places}, the pixels on {device}.",
            hint="Leave out device=, or move it: model.to(device).",
        )
    if re.search(r"shape|size|dimension|channels", text):
        return UsageError(
            f"The model cannot take these pixels: {' '.join(text.split())[:200]}.", hint="Resize inside the model."
        )
    return None
