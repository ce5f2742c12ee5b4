"""Reading images: decoding every file in every epoch, as image folders are usually read, against the image cache."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from apd_bench.data.folder import read_folder
from apd_bench.data.splits import ImageSplit
from apd_bench.data.stores import FilePixels
from tests.benchmarks.table import Row, in_turn


def rows(quick: bool, device: str) -> Iterator[Row]:
    """One row of 200 photographs (100 if quick) at 224 px."""
    yield image_row(100 if quick else 200, image_size=224, batch_size=100, repeats=3)


def image_row(count: int, *, image_size: int, batch_size: int, repeats: int) -> Row:
    """An epoch over `count` made-up photographs, opened anew each time, without and with the cache; same bytes."""
    with tempfile.TemporaryDirectory(prefix="apd-bench-images-") as name:
        work = Path(name)
        _photographs(work / "images", count)

        def epoch(cache: Path | None) -> int:
            split = _split(work / "images", image_size, cache)
            starts = range(0, count, batch_size)
            return sum(int(split.images(range(low, min(low + batch_size, count))).sum()) for low in starts)

        (first,) = in_turn({"first": lambda: epoch(work / "cache")}, 1, warm=False)["first"]
        same = epoch(None) == epoch(work / "cache")
        seconds = in_turn({"usual": lambda: epoch(None), "ours": lambda: epoch(work / "cache")}, repeats)
    what = f"an epoch over {count:,} JPEG files of 500 x 375 at {image_size} px"
    facts = {"first epoch, which fills the cache, s": round(first, 2), "same pixels": "yes" if same else "no"}
    return Row(part="data", what=what, usual=seconds["usual"], ours=seconds["ours"], facts=facts)


def _photographs(folder: Path, count: int) -> None:
    """Writes JPEG files of the size of ImageNet's into two class folders."""
    generator = np.random.default_rng(0)
    for number in range(count):
        coarse = generator.integers(0, 256, (31, 41, 3), np.uint8)
        path = folder / f"class {number % 2}" / f"{number:05d}.jpg"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(coarse).resize((500, 375), Image.Resampling.BICUBIC).save(path, "JPEG", quality=90)


def _split(folder: Path, image_size: int, cache: Path | None) -> ImageSplit:
    source = read_folder(folder)
    items = source.splits["test"]
    ids = tuple(f"timing/test/{item.key}" for item in items)
    store = FilePixels(items, ids, source, "timing", image_size=image_size, resize="crop", cache=cache)
    labels = torch.tensor([item.label for item in items])
    return ImageSplit("test", ids, labels, store, np.arange(len(items), dtype=np.int64))
