"""Images with labels: one split of a set, a set of splits, and opening one from its spec.

Pixels are uint8 or [0,1] floats, never normalised.
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from types import FunctionType
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from apd_bench.core.errors import CorruptFile, UsageError
from apd_bench.core.specs import RESIZES, DatasetSpec, one_of
from apd_bench.core.targets import resolve
from apd_bench.data.images import Bytes, Rows

Indexes = Sequence[int] | Tensor | Rows | None


class PixelStore(Protocol):
    """Where a split's pixels come from: decoded in memory, or a cache on disk."""

    image_size: int

    def read(self, rows: Rows) -> Bytes:
        """The images at `rows` as uint8 [n, 3, S, S], in that order; raises CorruptFile for undecodable ones."""
        ...


@dataclass(frozen=True, eq=False)
class ImageSplit:
    """N labelled images: labels int64 [N], ids that are stable and unique, rows int64 [N] of the images in `store`.

    `published` holds sample lists that the literature fixed, by their length (ImageNet's 5,000 test ids).
    Raises CorruptFile when ids are not unique or the lengths differ.
    """

    name: str
    ids: tuple[str, ...]
    labels: Tensor
    store: PixelStore
    rows: Rows
    published: Mapping[int, tuple[str, ...]] = field(default_factory=dict)

    def __post_init__(self) -> None:
        if not len(self.ids) == len(self.labels) == len(self.rows):
            raise CorruptFile(
                f"Split '{self.name}' has {len(self.ids)} ids, {len(self.labels)} labels and {len(self.rows)} images.",
                hint="These must be equal: mend the loader of this set.",
            )
        if len(set(self.ids)) != len(self.ids):
            twice = next(name for name, count in Counter(self.ids).items() if count > 1)
            raise CorruptFile(
                f"Split '{self.name}' lists the sample '{twice}' more than once.",
                hint="Remove the repeated entry from the split file.",
            )

    def __len__(self) -> int:
        return len(self.ids)

    @property
    def image_size(self) -> int:
        """The side S of the square images."""
        return self.store.image_size

    def images(self, indexes: Indexes = None) -> Tensor:
        """The images at `indexes` (all of them for None) as uint8 [n, 3, S, S]."""
        return torch.from_numpy(self.store.read(self.rows[_places(indexes, len(self))]))

    def pixels(self, indexes: Indexes = None) -> Tensor:
        """The images at `indexes` (all of them for None) as float32 [n, 3, S, S] in [0,1]."""
        return self.images(indexes).to(torch.float32).div_(255.0)

    def subset(self, indexes: Indexes) -> "ImageSplit":
        """The split reduced to `indexes`, in that order, ids kept."""
        places = _places(indexes, len(self))
        return replace(
            self,
            ids=tuple(self.ids[place] for place in places),
            labels=self.labels[torch.from_numpy(places)],
            rows=self.rows[places],
        )


@dataclass(frozen=True, eq=False)
class LoadedDataset:
    """A set in use: the class names in label order, the prompt template, and its splits (None where it has none).

    `origin` says, for the record, where it came from: layout, split file, whether the split was derived, what was
    left out.
    """

    spec: DatasetSpec
    classes: tuple[str, ...]
    template: str
    train: ImageSplit | None
    val: ImageSplit | None
    test: ImageSplit
    origin: Mapping[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        for split in self.splits():
            if len(split) and not 0 <= int(split.labels.min()) <= int(split.labels.max()) < len(self.classes):
                low, high = int(split.labels.min()), int(split.labels.max())
                label = high if low >= 0 else low
                sample = split.ids[int((split.labels == label).nonzero()[0])]
                raise CorruptFile(
                    f"Sample '{sample}' of {self.spec.name} has label {label}, but there are only "
                    f"{len(self.classes)} class names.",
                    hint="Class list and split file belong to different versions of the set: "
                    f"apd-bench datasets check {self.spec.name}",
                )

    def splits(self) -> tuple[ImageSplit, ...]:
        """The splits that exist, in the order train, val, test."""
        return tuple(split for split in (self.train, self.val, self.test) if split is not None)

    def split(self, name: str) -> ImageSplit:
        """The split called `name` ("train", "val" or "test"); raises UsageError where the set has none."""
        found = {"train": self.train, "val": self.val, "test": self.test}.get(name)
        if found is None:
            names = ", ".join(split.name for split in self.splits())
            raise UsageError(f"{self.spec.name} has no split '{name}'. It has: {names}.")
        return found


def load_dataset(
    spec: DatasetSpec, *, image_size: int, resize: str = "crop", root: str | Path | None = None
) -> LoadedDataset:
    """The set `spec` with images of `image_size` pixels a side; `resize` is "crop" or "squash".

    `root` is the folder that holds the sets (default: $APD_BENCH_DATA). Raises MissingPrerequisite for absent files,
    CorruptFile for files that are not what they claim, UsageError for arguments that make no sense.
    """
    one_of("Resize", resize, RESIZES)
    if image_size < 1:
        raise UsageError(f"An image size of {image_size} makes no image.")
    if not spec.loader:
        raise UsageError(f"'{spec.name}' does not say how it is loaded.", hint=f"Use DATASETS.get({spec.name!r}).")
    load = resolve(spec.loader, FunctionType)
    found: LoadedDataset = load(spec, image_size=image_size, resize=resize, root=None if root is None else Path(root))
    return found


class _Stores:
    """The pixels of several splits one after the other."""

    def __init__(self, parts: Sequence[ImageSplit]) -> None:
        self._parts, self.image_size = parts, parts[0].image_size
        self._ends = np.cumsum([len(part) for part in parts])

    def read(self, rows: Rows) -> Bytes:
        """The images at `rows` as uint8 [n, 3, S, S]."""
        out = np.empty((len(rows), 3, self.image_size, self.image_size), np.uint8)
        owners = np.searchsorted(self._ends, rows, side="right")
        for number, part in enumerate(self._parts):
            mine = owners == number
            out[mine] = part.store.read(part.rows[rows[mine] - (self._ends[number] - len(part))])
        return out


def joined(name: str, parts: Sequence[ImageSplit]) -> ImageSplit:
    """Splits of one set as a single one called `name`, in their order."""
    if len(parts) == 1:
        return replace(parts[0], name=name)
    ids = tuple(sample for part in parts for sample in part.ids)
    labels = torch.cat([part.labels for part in parts])
    return ImageSplit(name, ids, labels, _Stores(parts), np.arange(len(ids), dtype=np.int64))


def _places(indexes: Indexes, size: int) -> Rows:
    if indexes is None:
        return np.arange(size, dtype=np.int64)
    places = np.asarray(indexes.cpu() if isinstance(indexes, Tensor) else indexes, dtype=np.int64).reshape(-1)
    if len(places) and (places.min() < -size or places.max() >= size):
        raise IndexError(f"sample index out of range for a split of {size}")
    return np.where(places < 0, places + size, places)
