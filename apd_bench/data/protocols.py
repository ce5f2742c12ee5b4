"""Which images a method is fitted on and tested on: few-shot draws, sample limits, base and new classes.

The few-shot draw is the one of CoOp (Zhou et al., IJCV 2022; Dassl's `generate_fewshot_dataset`): one
`random.seed(seed)`, then for the labels of the training split in order of first appearance a `random.sample` of k
images, then the same for the validation split with min(k, 4). CoOp ignores seed 0; here it is a seed like any other.
"""

import hashlib
import math
import random
from collections.abc import Callable, Iterable
from dataclasses import replace

import torch

from apd_bench.core.errors import IncompatibleChoice, UsageError
from apd_bench.core.specs import CLASS_SETS, one_of
from apd_bench.data.splits import ImageSplit, LoadedDataset, joined

VAL_SHOTS = 4


def few_shot(train: ImageSplit, val: ImageSplit | None, shots: int, seed: int) -> tuple[ImageSplit, ImageSplit | None]:
    """`shots` training and min(shots, 4) validation images of each class, drawn by `seed` in one random stream.

    Of a class that has fewer, all are taken; -1 takes everything.
    """
    stream = random.Random(seed)  # noqa: S311  (a reproducible draw, not a secret)
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
    train, val = few_shot(dataset.train, dataset.val, shots, seed)
    return select_classes(replace(dataset, train=train, val=val), classes)


def held_out(dataset: LoadedDataset, taken: Iterable[str] = ()) -> ImageSplit:
    """The validation images of `dataset` and those of its training images whose ids are not in `taken`.

    Raises IncompatibleChoice where none is left.
    """
    unwanted, rest = set(taken), dataset.train
    if rest is not None:
        rest = rest.subset([place for place, name in enumerate(rest.ids) if name not in unwanted])
    parts = [part for part in (dataset.val, rest) if part is not None and len(part)]
    if not parts:
        raise IncompatibleChoice(
            f"{dataset.spec.name} has no validation image, and all of its training images are learned from.",
            hint="Use fewer --shots.",
        )
    return joined("held_out", parts)


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
    turns: list[tuple[int, str, int]] = []
    for places in _by_class(split):
        ordered = sorted(places, key=keys.__getitem__)
        turns.extend((turn, keys[place], place) for turn, place in enumerate(ordered))
    return split.subset(sorted(place for _, _, place in sorted(turns)[:limit]))


def class_half(count: int, classes: str) -> range:
    """The labels of "all" of `count` classes, of the "base" half (the first, rounded up), or of the "new" rest."""
    middle = math.ceil(count / 2)
    labels = {"all": range(count), "base": range(middle), "new": range(middle, count)}
    return labels[one_of("Class set", classes, CLASS_SETS)]


def select_classes(dataset: LoadedDataset, classes: str) -> LoadedDataset:
    """`dataset` reduced to "all" classes, "base" (the first half, rounded up) or "new" (the rest), relabelled from 0.

    Raises IncompatibleChoice where fewer than two classes or no test images are left.
    """
    kept = class_half(len(dataset.classes), classes)
    if len(kept) == len(dataset.classes):
        return dataset
    if len(kept) < 2:
        raise IncompatibleChoice(
            f"The {classes} half of {dataset.spec.name} has {len(kept)} class; at least 2 are needed.",
            hint="Use --classes all for this set.",
        )

    def reduced(split: ImageSplit) -> ImageSplit:
        inside = (split.labels >= kept.start) & (split.labels < kept.stop)
        part = split.subset(inside.nonzero().flatten())
        return replace(part, labels=part.labels.to(torch.int64) - kept.start)

    part = _each_split(dataset, reduced)
    if not len(part.test):
        raise IncompatibleChoice(f"No test image of {dataset.spec.name} belongs to its {classes} classes.")
    return replace(part, classes=tuple(dataset.classes[label] for label in kept))


def exclude_samples(dataset: LoadedDataset, ids: Iterable[str]) -> LoadedDataset:
    """`dataset` without the samples `ids`; raises UsageError naming those that it does not have."""
    unwanted = set(ids)
    if not unwanted:
        return dataset
    known = {name for split in dataset.splits() for name in split.ids}
    if strangers := sorted(unwanted - known):
        raise UsageError(
            f"{dataset.spec.name} has no sample '{strangers[0]}', so it cannot be left out.",
            hint=f"Sample ids look like '{dataset.test.ids[0]}'.",
        )

    def kept(split: ImageSplit) -> ImageSplit:
        return split.subset([place for place, name in enumerate(split.ids) if name not in unwanted])

    part = _each_split(dataset, kept)
    if not len(part.test):
        raise UsageError(f"Nothing of the test split of {dataset.spec.name} is left.")
    origin = {**dataset.origin, "excluded": sorted(unwanted | set(dataset.origin.get("excluded", ())))}
    return replace(part, origin=origin)


def _each_split(dataset: LoadedDataset, change: Callable[[ImageSplit], ImageSplit]) -> LoadedDataset:
    train, val = (None if split is None else change(split) for split in (dataset.train, dataset.val))
    return replace(dataset, train=train, val=val, test=change(dataset.test))


def _draw(split: ImageSplit, shots: int, stream: random.Random) -> ImageSplit:
    if shots == -1:
        return split
    if shots < 1:
        raise UsageError(f"{shots} shots a class is not a draw.", hint="Use --shots 1, 2, 4, 8, 16, or -1 for all.")
    chosen = [stream.sample(places, shots) if len(places) >= shots else places for places in _by_class(split)]
    return split.subset([place for places in chosen for place in places])


def _by_class(split: ImageSplit) -> list[list[int]]:
    """The places of the images of each class, classes in order of first appearance."""
    members: dict[int, list[int]] = {}
    for place, label in enumerate(split.labels.tolist()):
        members.setdefault(label, []).append(place)
    return list(members.values())
