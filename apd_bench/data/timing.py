"""How fast images come: a first epoch that decodes and a second one that reads the cache."""

from __future__ import annotations

import time
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from PIL import Image

from apd_bench.data.folder import read_folder
from apd_bench.data.protocols import limit_split
from apd_bench.data.splits import ImageSplit
from apd_bench.data.stores import FilePixels


@dataclass(frozen=True, kw_only=True)
class Epoch:
    """One pass over the images: seconds, and images a second."""

    name: str
    images: int
    seconds: float

    @property
    def rate(self) -> float:
        """Images a second."""
        return self.images / max(self.seconds, 1e-9)


def time_epochs(
    split: ImageSplit, *, limit: int, batch_size: int, reopen: Callable[[], ImageSplit] | None = None
) -> list[Epoch]:
    """Reads up to `limit` images of `split` three times: as they come first, again, and after opening the set anew.

    The first pass decodes whatever no earlier run has left in the cache. `reopen` gives the same split as a new process
    would see it.
    """
    epochs = [_epoch("first", split, limit, batch_size), _epoch("second", split, limit, batch_size)]
    if reopen is not None:
        epochs.append(_epoch("new process", reopen(), limit, batch_size))
    return epochs


def photographs(folder: Path, count: int, size: tuple[int, int] = (500, 375)) -> None:
    """Writes `count` JPEG files of the size of ImageNet's, in two class folders, to time on when no set is there."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (size[1] // 12, size[0] // 12, 3), np.uint8)
        path = folder / f"class {number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path, "JPEG", quality=90)


def folder_split(folder: Path, image_size: int, cache: Path | None) -> ImageSplit:
    """The images of `folder` as a test split with its cache below `cache`."""
    import torch

    source = read_folder(folder)
    items = source.splits["test"]
    ids = tuple(f"timing/test/{item.key}" for item in items)
    store = FilePixels(items, ids, source, "timing", image_size=image_size, resize="crop", cache=cache)
    labels = torch.tensor([item.label for item in items])
    return ImageSplit("test", ids, labels, store, np.arange(len(items), dtype=np.int64))


def _epoch(name: str, split: ImageSplit, limit: int, batch_size: int) -> Epoch:
    part = limit_split(replace(split, published={}), limit)
    began = time.perf_counter()
    for begin in range(0, len(part), batch_size):
        part.images(range(begin, min(begin + batch_size, len(part))))
    return Epoch(name=name, images=len(part), seconds=time.perf_counter() - began)
