"""Which images a method is fitted on and tested on: few-shot draws, sample limits, base and new classes.

The few-shot draw is the one of CoOp (Zhou et al., IJCV 2022; Dassl's `generate_fewshot_dataset`): one
`random.seed(seed)`, then for the labels of the training split in order of first appearance a `random.sample` of k
images, then the same for the validation split with min(k, 4). CoOp ignores seed 0; here it is a seed like any other.
"""

from __future__ import annotations

import hashlib
import math
import random
from collections.abc import Iterable
from dataclasses import replace

import torch

from apd_bench.core.errors import IncompatibleChoice, UsageError
from apd_bench.core.specs import CLASS_SETS, one_of
from apd_bench.data.splits import ImageSplit, LoadedDataset

VAL_SHOTS = 4


def few_shot(split: ImageSplit, shots: int, seed: int) -> ImageSplit:
    """`shots` images of each class of `split` (all of a class that has fewer; -1: everything), drawn by `seed`."""
    return _draw(split, shots, random.Random(seed))  # noqa: S311  (a reproducible draw, not a secret)


def few_shot_pair(
    train: ImageSplit, val: ImageSplit | None, shots: int, seed: int
) -> tuple[ImageSplit, ImageSplit | None]:
    """The few-shot training images, and min(shots, 4) validation images a class from the same random stream."""
    stream = random.Random(seed)  # noqa: S311
    drawn = _draw(train, shots, stream)
    return drawn, None if val is None else _draw(val, min(shots, VAL_SHOTS), stream)


def few_shot_dataset(dataset: LoadedDataset, *, shots: int, seed: int, classes: str = "all") -> LoadedDataset:
    """The set to fit on: drawn from all classes first, then reduced to `classes`, as the CoOp family does.

    Raises IncompatibleChoice when the set has no training split.
    """
    if dataset.train is None:
        raise IncompatibleChoice(
            f"{dataset.spec.name} has only a test split; nothing can be fitted on it."
            + (f" ({dataset.origin['no_train']} is not there.)" if "no_train" in dataset.origin else ""),
            hint="Fit on another set and test here: --task cross_dataset",
        )
    train, val = few_shot_pair(dataset.train, dataset.val, shots, seed)
    return select_classes(replace(dataset, train=train, val=val), classes)


def limit_split(split: ImageSplit, limit: int | None) -> ImageSplit:
    """At most `limit` images of `split`, balanced over its classes, in the split's order; None keeps all.

    The choice depends on the sample ids alone (no seed), and a smaller limit is contained in a larger one. Where the
    literature fixed a list of that length, it is used instead.
    """
    if limit is None or limit >= len(split):
        return split
    if limit < 1:
        raise UsageError(f"A limit of {limit} samples leaves nothing to measure.", hint="Use --limit 20.")
    if limit in split.published:
        wanted = set(split.published[limit])
        chosen = [place for place, name in enumerate(split.ids) if name in wanted]
        if len(chosen) == limit:
            return split.subset(chosen)
    keys = [hashlib.sha256(name.encode()).hexdigest() for name in split.ids]
    members: dict[int, list[int]] = {}
    for place, label in enumerate(split.labels.tolist()):
        members.setdefault(label, []).append(place)
    turns: list[tuple[int, str, int]] = []
    for places in members.values():
        ordered = sorted(places, key=keys.__getitem__)
        turns.extend((turn, keys[place], place) for turn, place in enumerate(ordered))
    return split.subset(sorted(place for _, _, place in sorted(turns)[:limit]))


def class_range(count: int, classes: str) -> range:
    """The labels of the class set "all", "base" (the first half, rounded up) or "new" (the rest) of `count` classes."""
    one_of("Class set", classes, CLASS_SETS)
    middle = math.ceil(count / 2)
    return {"all": range(count), "base": range(middle), "new": range(middle, count)}[classes]


def select_classes(dataset: LoadedDataset, classes: str) -> LoadedDataset:
    """`dataset` reduced to the class set `classes`, relabelled from 0."""
    kept = class_range(len(dataset.classes), classes)
    if len(kept) == len(dataset.classes):
        return dataset
    if len(kept) < 2:
        raise IncompatibleChoice(
            f"The {classes} half of {dataset.spec.name} has {len(kept)} class; at least 2 are needed.",
            hint="Use --classes all for this set.",
        )
    train, val, test = (None if s is None else _reduce(s, kept) for s in (dataset.train, dataset.val, dataset.test))
    if test is None or not len(test):
        raise IncompatibleChoice(f"No test image of {dataset.spec.name} belongs to its {classes} classes.")
    names = tuple(dataset.classes[label] for label in kept)
    return replace(dataset, classes=names, train=train, val=val, test=test)


def exclude_samples(dataset: LoadedDataset, ids: Iterable[str]) -> LoadedDataset:
    """`dataset` without the samples `ids`; raises UsageError naming those that it does not have."""
    prefix = dataset.test.ids[0].split("/", 1)[0]
    unwanted = {name for name in ids if name.split("/", 1)[0] == prefix}
    if not unwanted:
        return dataset
    known = {name for split in dataset.splits() for name in split.ids}
    if strangers := sorted(unwanted - known):
        raise UsageError(
            f"{dataset.spec.name} has no sample '{strangers[0]}', so it cannot be left out.",
            hint=f"Sample ids look like '{dataset.test.ids[0]}'.",
        )

    def kept(split: ImageSplit | None) -> ImageSplit | None:
        if split is None:
            return None
        return split.subset([place for place, name in enumerate(split.ids) if name not in unwanted])

    test = kept(dataset.test)
    if test is None or not len(test):
        raise UsageError(f"Nothing of the test split of {dataset.spec.name} is left.")
    origin = {**dataset.origin, "excluded": sorted(unwanted | set(dataset.origin.get("excluded", ())))}
    return replace(dataset, train=kept(dataset.train), val=kept(dataset.val), test=test, origin=origin)


def _draw(split: ImageSplit, shots: int, stream: random.Random) -> ImageSplit:
    if shots == -1:
        return split
    if shots < 1:
        raise UsageError(f"{shots} shots a class is not a draw.", hint="Use --shots 1, 2, 4, 8, 16, or -1 for all.")
    members: dict[int, list[int]] = {}
    for place, label in enumerate(split.labels.tolist()):
        members.setdefault(label, []).append(place)
    chosen: list[int] = []
    for places in members.values():
        chosen.extend(stream.sample(places, shots) if len(places) >= shots else places)
    return split.subset(chosen)


def _reduce(split: ImageSplit, kept: range) -> ImageSplit:
    inside = (split.labels >= kept.start) & (split.labels < kept.stop)
    reduced = split.subset(inside.nonzero().flatten())
    return reduced.relabelled(reduced.labels.to(torch.int64) - kept.start)
