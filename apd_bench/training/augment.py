"""Training images: held in memory as one uint8 tensor where they fit, cropped and flipped a batch at a time."""

import math
from collections.abc import Iterable, Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from apd_bench.data.moving import moved
from apd_bench.data.splits import ImageSplit

MEMORY_LIMIT = 4 * 2**30
SCALE = (0.08, 1.0)
RATIO = (3 / 4, 4 / 3)


class TrainingImages:
    """The images of a split by index, as float32 [B, 3, S, S] in [0,1] on `device`."""

    def __init__(self, split: ImageSplit, device: torch.device) -> None:
        self.split = split
        self.device = device
        self.labels = split.labels.to(device)
        size = len(split) * 3 * split.image_size**2
        self.held = split.images().to(device) if size <= MEMORY_LIMIT else None

    def __call__(self, indexes: Tensor) -> Tensor:
        """The images at `indexes` [B], un-augmented."""
        images = self.split.images(indexes) if self.held is None else self.held[indexes.to(self.device)]
        return images.to(self.device, torch.float32).div_(255.0)

    def batches(self, batches: Iterable[Tensor]) -> Iterator[Tensor]:
        """The images of each of `batches`, in their order; those not held in memory are read ahead where that pays."""
        if self.held is not None:
            return (self(indexes) for indexes in batches)
        return (images.to(torch.float32).div_(255.0) for images in moved(self.split.images, batches, self.device))


def crop_flip(pixels: Tensor, generator: torch.Generator) -> Tensor:
    """A random resized crop (scale 0.08 to 1, ratio 3/4 to 4/3, bicubic) and a coin-flip mirror of each image.

    The augmentation of CoOp and APT (Dassl's `random_resized_crop`, `random_flip`), on images [B, 3, S, S] that already
    have the model's size, the whole batch in one resampling.
    """
    count, size = len(pixels), pixels.shape[-1]
    draw = torch.rand(5, count, generator=generator, dtype=torch.float32)
    area = SCALE[0] + (SCALE[1] - SCALE[0]) * draw[0]
    low, high = math.log(RATIO[0]), math.log(RATIO[1])
    ratio = torch.exp(low + (high - low) * draw[1])
    width = (area * ratio).sqrt().clamp(1 / size, 1)
    height = (area / ratio).sqrt().clamp(1 / size, 1)
    transform = torch.zeros(count, 2, 3)
    transform[:, 0, 0] = torch.where(draw[4] < 0.5, -width, width)
    transform[:, 0, 2] = (2 * draw[2] - 1) * (1 - width)
    transform[:, 1, 1] = height
    transform[:, 1, 2] = (2 * draw[3] - 1) * (1 - height)
    grid = F.affine_grid(transform.to(pixels.device), list(pixels.shape), align_corners=False)
    return F.grid_sample(pixels, grid, mode="bicubic", padding_mode="reflection", align_corners=False).clamp(0, 1)
