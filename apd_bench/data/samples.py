"""From a card to checked lists of samples: find the copy, read its split, name what is wrong. Torch-free.

Which split is read:

- "official": CoOp's json where the set has one, else the publisher's own lists. Absent: an error that names the file.
- "publisher": the publisher's lists (for webdataset shards, theirs), validation images set apart where they are not.
- "derived": computed from the sorted sample keys at CoOp's proportions. Marked in the record.
"""

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, UserError
from apd_bench.core.files import read_bytes
from apd_bench.data import arrays, readers
from apd_bench.data.cards import Card
from apd_bench.data.digests import content_digests
from apd_bench.data.listing import Item, Source, align_classes, derive_splits
from apd_bench.data.names import excluding
from apd_bench.data.places import WEBDATASET, Place, find_places, find_split_file, not_found
from apd_bench.data.shards import read_shards

SHOWN = 5
ARRAY_READERS = ("cifar", "stl10")


def list_samples(card: Card, *, split: str = "official", problems: str = "error", roots: tuple[Path, ...]) -> Source:
    """The samples of the set, split and checked.

    With `problems` "exclude", samples that cannot be used are left out and listed in `notes["excluded"]`; otherwise
    they raise one CorruptFile that names them. Raises MissingPrerequisite when the set or its split file is absent.
    """
    places = find_places(card, roots)
    if not places:
        raise not_found(card, roots)
    source, place = _read(card, places, split, roots)
    source.layout, source.folder = place.layout, place.folder
    _refuse_nameless_labels(source, card)
    if place.layout == WEBDATASET:
        align_classes(source, card.classes, card.shard_classes)
        present = {item.label for item in source.items()}
        source.gaps += [f"no image is of class {n} ({name})" for n, name in enumerate(card.classes) if n not in present]
    elif not source.split_source.endswith(".json") and set(source.classes) == set(card.classes):
        align_classes(source, card.classes)  # a list may have the card's classes under other labels
    derive_splits(source, anew=split == "derived" and card.derives_everything)
    source.problems += _missing_files(source)
    trouble = [*source.gaps, *source.problems]
    if trouble and problems == "error":
        more = f", and {len(trouble) - SHOWN} more" if len(trouble) > SHOWN else ""
        raise CorruptFile(
            f"{card.title} has {len(trouble)} sample problems: {'; '.join(trouble[:SHOWN])}{more}.",
            hint=_mend(card, split, gaps=bool(source.gaps)),
        )
    source.note_problems()
    if wrong := _wrong_counts(card, source, split):
        if problems == "error":
            raise CorruptFile(
                f"{card.title} below {place.folder} is not complete: {wrong}.", hint=_mend(card, split, gaps=False)
            )
        source.notes["counts"] = wrong
    return source


def data_digest(card: Card, split: str, roots: tuple[Path, ...]) -> str:
    """What decides labels and splits, hashed: class names, split mode, and the split file or lists where present.

    No image file is opened. Files that hold labels and images alike (shards, the arrays of CIFAR and STL-10) count with
    their content, a derived split with the sample keys. A set that is not there hashes to its card alone.
    """
    digest = hashlib.sha256(json.dumps([card.name, card.classes, split]).encode())
    places = find_places(card, roots)
    if split == "official" and card.split_file:
        path = find_split_file(card, roots)
        lists, folder, keys = [path] if path else [], Path(), list[str]()
    elif places:
        lists, folder, keys = _deciding(card, places[0])
    else:
        return digest.hexdigest()
    for path in lists:
        digest.update(path.name.encode())
        digest.update(read_bytes(str(path)))
    for key, content in zip(keys, content_digests(folder, keys), strict=True):
        digest.update(f"{key}\0{content}\0".encode())
    if split == "derived":
        with suppress(UserError):  # said where the set is opened
            source, _ = _read(card, places, split, roots)
            digest.update(json.dumps(sorted(f"{item.label} {item.key}" for item in source.items())).encode())
    return digest.hexdigest()


def _deciding(card: Card, place: Place) -> tuple[list[Path], Path, list[str]]:
    """The lists that decide a split, then a folder and in it the files that hold labels and images in one."""
    if place.layout == WEBDATASET:
        files = sorted(place.folder.rglob("*"))
        shards = sorted(str(path.relative_to(place.folder)) for path in files if path.suffix == ".tar")
        return [path for path in files if path.suffix == ".txt"], place.folder, shards
    lists = [path for name in (*card.lists, "classnames.txt") if (path := place.folder / name).is_file()]
    if card.reader not in ARRAY_READERS:
        return lists, place.folder, []
    names = (path.name for path in place.images.iterdir() if path.is_file())
    return lists, place.images, sorted(name for name in names if re.match("data_batch|test|train", name))


def _read(card: Card, places: list[Place], split: str, roots: tuple[Path, ...]) -> tuple[Source, Place]:
    if split == "official" and card.split_file:
        path = find_split_file(card, roots)
        images = [place for place in places if place.layout != WEBDATASET]
        if path is None or not images:
            raise _no_official_split(card, places[0], path)
        return readers.read_split_file(card, images[0], path), images[0]
    if split == "derived" and not card.split_file:
        raise IncompatibleChoice(
            f"{card.title} comes with its official split; there is nothing to derive.", hint=f"Use: {card.name}"
        )
    place = places[0]
    if place.layout == WEBDATASET:
        return read_shards(card, place), place
    room = arrays if card.reader in ARRAY_READERS else readers
    source: Source = getattr(room, card.reader)(card, place)
    if split == "publisher" and "all" in source.splits:
        raise IncompatibleChoice(
            f"The publisher of {card.title} gives no split.",
            hint=f"Use {card.name} with {card.split_file}, or {card.name}@derived.",
        )
    return source, place


def _no_official_split(card: Card, place: Place, split_file: Path | None) -> MissingPrerequisite:
    if split_file is None:
        message = (
            f"{card.title} is there ({place.layout} layout, {place.folder}), but its official split "
            f"{card.split_file} is not."
        )
    else:
        message = f"{split_file} names image files, but only webdataset shards are there ({place.folder})."
    return MissingPrerequisite(
        message,
        hint=f"Fetch it from {card.split_url} into {place.folder}, or: apd-bench datasets prepare {card.name}. "
        f"Other splits, marked as such in the results: {card.name}@publisher, {card.name}@derived.",
    )


def _refuse_nameless_labels(source: Source, card: Card) -> None:
    """Raises CorruptFile for labels without a name: they say that all labels are in doubt, not that samples are bad."""
    labels, count = {item.label for item in source.items()}, len(source.classes)
    bad = sorted(label for label in labels if not 0 <= label < count)
    if not bad:
        return
    sample = next(item.key for item in source.items() if item.label == bad[0])
    counted = min(labels) == 1 and max(labels) == count
    raise CorruptFile(
        f"{card.title} has {count} classes, so labels go from 0 to {count - 1}; those in {source.split_source} go from "
        f"{min(labels)} to {max(labels)} ({sample} has {bad[0]}).",
        hint=f"They count from 1: subtract 1 from each label in {source.folder}."
        if counted
        else f"Labels and class names belong to different versions of the set: get {source.folder} again.",
    )


def _missing_files(source: Source) -> list[str]:
    """The listed image files that do not exist, found by reading each folder once; they are dropped from the splits."""
    if source.arrays or source.listed or source.layout == WEBDATASET:
        return []
    present: dict[str, set[str]] = {}

    def is_there(item: Item) -> bool:
        folder, _, name = item.key.rpartition("/")
        if folder not in present:
            path = source.base / folder
            present[folder] = {entry.name for entry in os.scandir(path) if entry.is_file()} if path.is_dir() else set()
        return name in present[folder]

    lost = [item for item in source.items() if not is_there(item)]
    source.splits = {split: [item for item in items if is_there(item)] for split, items in source.splits.items()}
    return [f"{source.base / item.key} is missing" for item in lost]


def _wrong_counts(card: Card, source: Source, split: str) -> str:
    expected: Mapping[str, int] = {"official": card.counts, "publisher": card.publisher_counts}.get(split, {})
    if source.layout == WEBDATASET:
        expected = {} if card.split_file else {"test": card.counts["test"]}
    found = {name: len(items) for name, items in source.splits.items()}
    found["trainval"] = found.get("train", 0) + found.get("val", 0)
    wrong = [
        f"{name} has {found.get(name, 0):,} images instead of {count:,}"
        for name, count in expected.items()
        if found.get(name, 0) != count and not (name == "train" and "no_train" in source.notes)
    ]
    return ", ".join(wrong)


def _mend(card: Card, split: str, *, gaps: bool) -> str:
    if gaps:
        return f"Restore what is missing: apd-bench datasets prepare {card.name}"
    name = excluding(card.name if split == "official" else f"{card.name}@{split}")
    return f"Restore the files, or leave those samples out (recorded): {name}."
