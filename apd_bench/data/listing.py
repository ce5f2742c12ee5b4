"""Lists of samples before an image is opened: what readers return, class folders, derived splits. Torch-free.

A derived split depends on the sample keys alone: within a class the keys are ordered by their SHA-256 and cut at CoOp's
proportions, so directory order, file system and random generators play no part.
"""

import hashlib
import os
import re
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.errors import CorruptFile
from apd_bench.core.text import is_utf8, printable

IMAGE_SUFFIXES = frozenset(
    {".jpg", ".jpeg", ".jpe", ".jfif", ".png", ".webp", ".bmp", ".gif", ".tif", ".tiff", ".ppm", ".pgm"}
)
SPLITS = ("train", "val", "test")
TRAIN_SHARE, VAL_SHARE, VAL_OF_TRAINVAL = 0.5, 0.2, 0.2  # CoOp: DATASETS.md, datasets/dtd.py, datasets/oxford_pets.py


class Item(NamedTuple):
    """A sample: its key (relative path or name, unique), label, and where its bytes are.

    An empty `path` means the file `key` below the source's base; `size` -1 means the whole file; in a source with
    `arrays`, `offset` is the row of the array.
    """

    key: str
    label: int
    path: str = ""
    offset: int = 0
    size: int = -1

    def file(self, base: Path) -> Path:
        """The file that holds its bytes."""
        return Path(self.path) if self.path else base / self.key

    def read(self, base: Path) -> bytes:
        """Its bytes; raises OSError."""
        with self.file(base).open("rb") as stream:
            stream.seek(self.offset)
            return stream.read(self.size)


@dataclass
class Source:
    """What a reader found: class names in label order and samples by split.

    Split names are "train", "val", "test", or "trainval" (validation images not set apart), or "all". `problems` holds
    what is wrong with single samples, `gaps` names classes without images; `arrays` raw uint8 images [N, 3, H, W] where
    there are no image files. `listed` says that the samples come from reading folders, so their files exist.
    """

    classes: tuple[str, ...]
    splits: dict[str, list[Item]]
    base: Path
    split_source: str
    layout: str = ""
    folder: Path = Path()
    listed: bool = False
    problems: list[str] = field(default_factory=list)
    gaps: list[str] = field(default_factory=list)
    arrays: Mapping[str, NDArray[np.uint8]] = field(default_factory=dict)
    derived: list[str] = field(default_factory=list)
    notes: dict[str, Any] = field(default_factory=dict)

    def items(self) -> list[Item]:
        """The samples of all splits."""
        return [item for items in self.splits.values() for item in items]

    def note_problems(self) -> None:
        """Puts what is left out, and which classes have no images, into `notes`."""
        for name, texts in (("excluded", self.problems), ("classes_without_images", self.gaps)):
            if texts:
                self.notes[name] = [text.replace(f"{self.base}/", "") for text in texts]


def entries(folder: Path) -> list[os.DirEntry[str]]:
    """What lies in `folder`, by name, without hidden names; raises CorruptFile where it cannot be read."""
    try:
        return sorted((e for e in os.scandir(folder) if not e.name.startswith(".")), key=lambda e: e.name)
    except OSError as error:
        raise CorruptFile(f"The folder {folder} cannot be read: {error.strerror or error}.") from error


def is_image(entry: os.DirEntry[str]) -> bool:
    """Whether the name of `entry` is that of an image."""
    return os.path.splitext(entry.name)[1].lower() in IMAGE_SUFFIXES  # noqa: PTH122  (a tenth of the cost of a Path)


def folder_items(source: Source, labels: Mapping[str, int], *, below: str = "") -> list[Item]:
    """The images in the class folders `labels` of `source.base`/`below`, by label and name.

    What is no image goes to `source.problems`, classes without images to `source.gaps`. Raises CorruptFile where the
    images are not in class folders at all.
    """
    items: list[Item] = []
    root = source.base / below
    inside = entries(root)
    present = {entry.name for entry in inside if entry.is_dir()}
    flat = sum(is_image(entry) for entry in inside)
    if flat and not present & set(labels):
        raise CorruptFile(
            f"{root} holds {flat:,} images side by side and none of the {len(labels):,} class folders.",
            hint=f"Sort them into {root.name}/<class>/. For ImageNet's validation images, the script valprep.sh of "
            "github.com/soumith/imagenetloader.torch does it, run in that folder.",
        )
    for folder, label in sorted(labels.items(), key=lambda pair: pair[1]):
        before = len(items)
        for entry in entries(root / folder) if folder in present else ():
            if reason := _trouble(entry):
                source.problems.append(f"{printable(root / folder / entry.name)} is {reason}")
            else:
                items.append(Item("/".join(filter(None, (below, folder, entry.name))), label))
        if len(items) == before:
            what = "holds no image" if folder in present else "is missing"
            source.gaps.append(f"class folder {printable(root / folder)} {what}")
    return items


def _trouble(entry: os.DirEntry[str]) -> str:
    if entry.is_symlink() and not os.path.exists(entry.path):  # noqa: PTH110
        return "a link to nothing"
    if entry.is_dir():
        return "a folder among images"
    if not is_image(entry) or not entry.is_file():
        return "not an image"
    return "" if is_utf8(entry.name) else "named in an encoding that is not UTF-8"


def split_classwise(items: Sequence[Item], shares: Sequence[tuple[str, float]]) -> dict[str, list[Item]]:
    """`items` cut class by class into the parts `shares` (rounded; the last takes the rest), in the items' order."""
    members: dict[int, list[int]] = defaultdict(list)
    for place, item in enumerate(items):
        members[item.label].append(place)
    chosen: dict[str, list[int]] = {name: [] for name, _ in shares}
    for places in members.values():
        places.sort(key=lambda place: hashlib.sha256(items[place].key.encode()).digest())
        begin = 0
        for name, share in shares[:-1]:
            end = begin + round(len(places) * share)
            chosen[name] += places[begin:end]
            begin = end
        chosen[shares[-1][0]] += places[begin:]
    return {name: [items[place] for place in sorted(places)] for name, places in chosen.items()}


def derive_splits(source: Source, *, anew: bool = False) -> None:
    """Gives `source` the splits train, val and test: from "all" by 50/20/30, from "trainval" by 80/20; marks it so.

    With `anew` the splits that are there are put together first.
    """
    if anew:
        source.splits = {"all": sorted(source.items(), key=lambda item: item.key)}
    if "all" in source.splits:
        thirds = (("train", TRAIN_SHARE), ("val", VAL_SHARE), ("test", 1 - TRAIN_SHARE - VAL_SHARE))
        source.splits = split_classwise(source.splits["all"], thirds)
        source.derived = ["train", "val", "test"]
    elif "trainval" in source.splits:
        halves = (("val", VAL_OF_TRAINVAL), ("train", 1 - VAL_OF_TRAINVAL))
        source.splits |= split_classwise(source.splits.pop("trainval"), halves)
        source.derived = ["train", "val"]


def align_classes(source: Source, classes: Sequence[str], order: Sequence[str] = ()) -> None:
    """Relabels `source` so that its classes are `classes`; raises CorruptFile where they are different classes.

    Names are compared as bags of words ("AM General Hummer SUV 2000" is "2000 AM General Hummer SUV"). Where all
    agree, labels are permuted; where four in five agree at the same place, the order is the same and only the
    spelling differs. `order` states the classes behind the source's labels outright ("" for a class to be dropped).
    """
    if order:
        same = len(order) == len(source.classes)
        target = [classes.index(name) if name else -1 for name in order] if same else []
    else:
        target = _matching(source.classes, classes)
    if not target:
        known = {_words(name) for name in classes}
        strange = [name for name in source.classes if _words(name) not in known][:3]
        raise CorruptFile(
            f"{source.split_source} lists {len(source.classes)} classes, expected are {len(classes)}"
            + (f"; not among them: {', '.join(strange)}" if strange else "")
            + ".",
            hint="It is another version of this set, or not this set.",
        )
    if target != list(range(len(classes))):
        for name, items in source.splits.items():
            moved = [item._replace(label=target[item.label]) for item in items]
            source.splits[name] = [item for item in moved if item.label >= 0]
    source.classes = tuple(classes)


def _matching(names: Sequence[str], wanted: Sequence[str]) -> list[int]:
    if len(names) != len(wanted):
        return []
    left, right = [_words(name) for name in names], [_words(name) for name in wanted]
    places = {words: place for place, words in enumerate(right)}
    if len(places) == len(right) and sorted(left) == sorted(right):
        return [places[words] for words in left]
    agreeing = sum(a == b for a, b in zip(left, right, strict=True))
    return list(range(len(wanted))) if agreeing >= 0.8 * len(wanted) else []


def _words(name: str) -> tuple[str, ...]:
    return tuple(sorted(re.findall(r"[a-z0-9]+", name.lower())))
