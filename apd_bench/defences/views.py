"""Random views of images as maps of tensors, so that an attack can differentiate through them.

A view is an affine map of the image (crop, flip, rotation, shear, shift: one sampling of the pixels) and, for AugMix,
a mixture of chains that also have maps of values. Published code makes views of 8-bit images before they become
tensors; here they are made of what the perturbation acts on, the image as the model reads it.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional

AUGMENTATIONS = ("crop_flip", "augmix")
_AREA, _RATIO = (0.08, 1.0), (3 / 4, 4 / 3)  # RandomResizedCrop: azshue/TPT data/augmix_ops.py, R-TPT, TAPT
_CHAINS, _LENGTH = 3, 3  # AugMix: Hendrycks et al. (ICLR 2020); severity 1 as in azshue/TPT
_ROTATION, _SHEAR, _SHIFT = 3.0, 0.03, 1 / 30  # the most that AugMix of severity 1 draws: a tenth of AutoAugment's
_OPERATIONS = (
    "autocontrast", "equalize", "posterize", "rotate", "solarize", "shear_x", "shear_y", "shift_x", "shift_y",
)  # fmt: skip


@dataclass(frozen=True)
class View:
    """One view: an affine map [2, 3] of the image and, for AugMix, chains of (operation, amount) with their weights."""

    affine: Tensor
    chains: tuple[tuple[tuple[str, float], ...], ...] = ()
    weights: tuple[float, ...] = ()
    mix: float = 1.0  # the weight of the view without chains


def draw_views(count: int, augment: str, generator: torch.Generator) -> list[View]:
    """`count` random views; the image itself is not among them."""
    return [_augmix(generator) if augment == "augmix" else View(_crop(generator)) for _ in range(count)]


def look(x: Tensor, views: Sequence[View]) -> Tensor:
    """The views [B, V, 3, H, W] of the images x [B, 3, H, W]; differentiable in x, through 8-bit maps as identity."""
    return torch.stack([_look(x, view) for view in views], dim=1)


def _look(x: Tensor, view: View) -> Tensor:
    crop = _sample(x, view.affine, beyond="border")
    if not view.chains:
        return crop
    mixed = torch.zeros_like(crop)
    for chain, weight in zip(view.chains, view.weights, strict=True):
        image = crop
        for name, amount in chain:
            image = _apply(image, name, amount)
        mixed = mixed + weight * image
    return view.mix * crop + (1 - view.mix) * mixed


def _sample(x: Tensor, affine: Tensor, beyond: str = "zeros") -> Tensor:
    """X seen through an affine map of coordinates in [-1, 1], bilinear; `beyond` it all is black, or its border."""
    grid = functional.affine_grid(affine.to(x).expand(len(x), -1, -1), list(x.shape), align_corners=False)
    return functional.grid_sample(x, grid, mode="bilinear", padding_mode=beyond, align_corners=False)


def _crop(generator: torch.Generator) -> Tensor:
    """A random resized crop, mirrored half of the time: torchvision's RandomResizedCrop and RandomHorizontalFlip."""
    flip = -1.0 if _uniform(generator, 0, 1) < 0.5 else 1.0
    for _ in range(10):
        area = _uniform(generator, *_AREA)
        ratio = math.exp(_uniform(generator, math.log(_RATIO[0]), math.log(_RATIO[1])))
        width, height = math.sqrt(area * ratio), math.sqrt(area / ratio)
        if width <= 1 and height <= 1:
            break
    else:
        width = height = 1.0
    left, top = _uniform(generator, 0, 1 - width), _uniform(generator, 0, 1 - height)
    return torch.tensor([[flip * width, 0, 2 * left + width - 1], [0, height, 2 * top + height - 1]])


def _augmix(generator: torch.Generator) -> View:
    """A crop, three chains of one to three operations, and Dirichlet(1) and Beta(1, 1) weights of the mixture."""
    crop = _crop(generator)
    chains = []
    for _ in range(_CHAINS):
        length = 1 + _index(generator, _LENGTH)
        chains.append(tuple(_operation(generator) for _ in range(length)))
    parts = [-math.log(max(_uniform(generator, 0, 1), 1e-12)) for _ in range(_CHAINS)]
    return View(crop, tuple(chains), tuple(part / sum(parts) for part in parts), _uniform(generator, 0, 1))


def _operation(generator: torch.Generator) -> tuple[str, float]:
    """An operation and its amount at severity 1: a level drawn from [0.1, 1] of ten, and a sign where it has one."""
    name = _OPERATIONS[_index(generator, len(_OPERATIONS))]
    level, sign = _uniform(generator, 0.1, 1), -1.0 if _uniform(generator, 0, 1) < 0.5 else 1.0
    most = {"shear_x": _SHEAR, "shear_y": _SHEAR, "shift_x": _SHIFT, "shift_y": _SHIFT}
    if name == "rotate":
        return name, sign * int(level * _ROTATION)  # whole degrees
    return name, sign * level * most.get(name, 0.1 * sign)  # solarize: a level of 256 in ten


def _apply(x: Tensor, name: str, amount: float) -> Tensor:
    if name == "autocontrast":
        low, high = x.amin((2, 3), keepdim=True).detach(), x.amax((2, 3), keepdim=True).detach()
        return torch.where(high > low, (x - low) / (high - low).clamp_min(1e-6), x)
    if name == "equalize":
        return x + (_equalized(x) - x).detach()
    if name == "posterize":  # AugMix of severity 1 always keeps four bits
        return x + ((x * 255).div(16, rounding_mode="floor") * 16 / 255 - x).detach()
    if name == "solarize":
        return torch.where(x < 1 - amount, x, 1 - x)
    angle = math.radians(amount) if name == "rotate" else 0.0
    shear = {"shear_x": (amount, 0.0), "shear_y": (0.0, amount)}.get(name, (0.0, 0.0))  # about the corner, as in Pillow
    shift = {"shift_x": (2 * amount, 0.0), "shift_y": (0.0, 2 * amount)}.get(name, shear)
    first = [math.cos(angle), -math.sin(angle) + shear[0], shift[0]]
    return _sample(x, torch.tensor([first, [math.sin(angle) + shear[1], math.cos(angle), shift[1]]]))


def _equalized(x: Tensor) -> Tensor:
    """The histogram of every channel made flat on 256 levels, by Pillow's whole numbers of pixels a level."""
    levels = (x * 255).round().long().flatten(2)
    counts = torch.zeros(*levels.shape[:2], 256, device=x.device).scatter_add_(2, levels, torch.ones_like(x.flatten(2)))
    below = (counts.cumsum(2) - counts).gather(2, levels)
    step = below.amax(2, keepdim=True).div(255, rounding_mode="floor")
    flat = (step.div(2, rounding_mode="floor") + below).div(step, rounding_mode="floor").clamp(max=255) / 255
    return torch.where(step > 0, flat, x.flatten(2)).view_as(x)


def _uniform(generator: torch.Generator, low: float, high: float) -> float:
    return low + (high - low) * float(torch.rand((), generator=generator))


def _index(generator: torch.Generator, count: int) -> int:
    return int(torch.randint(count, (), generator=generator))
