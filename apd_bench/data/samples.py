"""From a card to checked lists of samples: find the copy, read its split, name what is wrong. Torch-free.

Which split is read:

- "official": CoOp's json where the set has one, else the publisher's own lists. Absent: an error that names the file.
- "publisher": the publisher's lists (for webdataset shards, theirs), validation images set apart where they are not.
- "derived": computed from the sorted sample keys at CoOp's proportions. Marked in the record.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Mapping
from contextlib import suppress
from importlib import import_module
from pathlib import Path

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, UserError
from apd_bench.core.files import read_bytes
from apd_bench.data import readers
from apd_bench.data.cards import Card
from apd_bench.data.digests import content_digests
from apd_bench.data.listing import Item, Source, align_classes, derive_splits, merge_splits
from apd_bench.data.names import excluding
from apd_bench.data.places import WEBDATASET, Place, find_places, find_split_file, not_found

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
    if place.layout == WEBDATASET or (source.classes != card.classes and _reordered(source, card)):
        align_classes(source, card.classes, card.shard_classes if place.layout == WEBDATASET else ())
    if place.layout == WEBDATASET:
        present = {item.label for items in source.splits.values() for item in items}
        source.gaps += [f"no image is of class {n} ({name})" for n, name in enumerate(card.classes) if n not in present]
    if split == "derived" and card.derives_everything:
        merge_splits(source)
    derive_splits(source)
    found = [*source.problems, *_missing_files(source)]
    if (source.gaps or found) and problems == "error":
        raise CorruptFile(_summary(card, [*source.gaps, *found]), hint=_mend(card, split, gaps=bool(source.gaps)))
    for name, texts in (("excluded", found), ("classes_without_images", source.gaps)):
        if texts:
            source.notes[name] = [text.replace(f"{source.base}/", "") for text in texts]
    wrong = _wrong_counts(card, source, split)
    if wrong and problems == "error":
        raise CorruptFile(
            f"{card.title} below {place.folder} is not complete: {wrong}.", hint=_mend(card, split, gaps=False)
        )
    if wrong:
        source.notes["counts"] = wrong
    return source


def data_digest(card: Card, split: str, roots: tuple[Path, ...]) -> str:
    """What decides labels and splits, hashed: class names, split mode, and the split file or lists where present.

    No image file is opened. Files that hold labels and images alike (shards, the arrays of CIFAR and STL-10) count with
    their content, a derived split with the sample keys. A set that is not there hashes to its card alone.
    """
    digest = hashlib.sha256(json.dumps([card.name, card.classes, split]).encode())
    files, places = _deciding(card, split, roots), find_places(card, roots)
    for path in files:
        digest.update(path.name.encode())
        digest.update(read_bytes(str(path)))
    if places and (split != "official" or not card.split_file):
        folder, keys = _holding_labels(card, places[0])
        for key, content in zip(keys, content_digests(folder, keys), strict=True):
            digest.update(f"{key}\0{content}\0".encode())
    if split == "derived":
        with suppress(UserError):  # said where the set is opened
            source, _ = _read(card, places, split, roots)
            keys = sorted(f"{item.label} {item.key}" for items in source.splits.values() for item in items)
            digest.update(json.dumps(keys).encode())
    return digest.hexdigest()


def _holding_labels(card: Card, place: Place) -> tuple[Path, list[str]]:
    """The files, relative to a folder, that hold labels and images in one."""
    if place.layout == WEBDATASET:
        return place.folder, sorted(str(path.relative_to(place.folder)) for path in place.folder.rglob("*.tar"))
    if card.reader in ARRAY_READERS:
        found = (path.name for path in place.images.iterdir() if path.is_file())
        return place.images, sorted(name for name in found if re.match("data_batch|test|train", name))
    return place.folder, []


def _deciding(card: Card, split: str, roots: tuple[Path, ...]) -> list[Path]:
    places = find_places(card, roots)
    if split == "official" and card.split_file:
        path = find_split_file(card, roots)
        return [path] if path is not None else []
    if not places:
        return []
    place = places[0]
    if place.layout == WEBDATASET:
        return [path for path in sorted(place.folder.rglob("*")) if path.suffix == ".txt"]
    lists = [place.folder / name for name in (*readers.list_files(card), "classnames.txt")]
    return [path for path in lists if path.is_file()]


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
        from apd_bench.data.shards import read_shards

        return read_shards(card, place), place
    room = "arrays" if card.reader in ARRAY_READERS else "readers"
    reader: readers.Reader = getattr(import_module(f"apd_bench.data.{room}"), card.reader)
    source = reader(card, place)
    if split == "publisher" and "all" in source.splits:
        raise IncompatibleChoice(
            f"The publisher of {card.title} gives no split.",
            hint=f"Use {card.name} with {card.split_file}, or {card.name}@derived.",
        )
    return source, place


def _reordered(source: Source, card: Card) -> bool:
    """True where a list on disk has the card's classes under other labels; CoOp's json and spellings are kept as is."""
    return not source.split_source.endswith(".json") and set(source.classes) == set(card.classes)


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
    labels = {item.label for items in source.splits.values() for item in items}
    bad, count = sorted(label for label in labels if not 0 <= label < len(source.classes)), len(source.classes)
    if not bad:
        return
    sample = next(item.key for items in source.splits.values() for item in items if item.label == bad[0])
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
    found = []
    for split, items in source.splits.items():
        kept: list[Item] = []
        for item in items:
            folder, _, name = item.key.rpartition("/")
            if folder not in present:
                path = source.base / folder
                present[folder] = (
                    {entry.name for entry in os.scandir(path) if entry.is_file()} if path.is_dir() else set()
                )
            if name in present[folder]:
                kept.append(item)
            else:
                found.append(f"{source.base / item.key} is missing")
        source.splits[split] = kept
    return found


def _wrong_counts(card: Card, source: Source, split: str) -> str:
    expected: Mapping[str, int] = card.counts if split == "official" else {}
    if split == "publisher" and source.layout != WEBDATASET:
        expected = card.publisher_counts
    if source.layout == WEBDATASET and not card.split_file:
        expected = {"test": card.counts["test"]}
    found = {name: len(items) for name, items in source.splits.items()}
    found["trainval"] = found.get("train", 0) + found.get("val", 0)
    wrong = [
        f"{name} has {found.get(name, 0):,} images instead of {count:,}"
        for name, count in expected.items()
        if found.get(name, 0) != count and not (name == "train" and "no_train" in source.notes)
    ]
    return ", ".join(wrong)


def _summary(card: Card, found: list[str]) -> str:
    more = f", and {len(found) - SHOWN} more" if len(found) > SHOWN else ""
    return f"{card.title} has {len(found)} sample problems: {'; '.join(found[:SHOWN])}{more}."


def _mend(card: Card, split: str, *, gaps: bool) -> str:
    if gaps:
        return f"Restore what is missing: apd-bench datasets prepare {card.name}"
    name = excluding(card.name if split == "official" else f"{card.name}@{split}")
    return f"Restore the files, or leave those samples out (recorded): {name}."
