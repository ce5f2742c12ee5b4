"""Loading a benchmark set: checked sample lists become splits whose pixels come from the cache."""

from pathlib import Path

import numpy as np
import torch

from apd_bench.core.cache import cache_root
from apd_bench.core.errors import CorruptFile
from apd_bench.core.files import read_lines
from apd_bench.core.specs import DatasetSpec
from apd_bench.data.cards import card_of
from apd_bench.data.listing import SPLITS, Source
from apd_bench.data.places import PUBLISHED_IDS, WEBDATASET, data_roots
from apd_bench.data.protocols import exclude_samples
from apd_bench.data.samples import list_samples
from apd_bench.data.splits import ImageSplit, LoadedDataset
from apd_bench.data.stores import FilePixels


def load(spec: DatasetSpec, *, image_size: int, resize: str = "crop", root: Path | None = None) -> LoadedDataset:
    """The benchmark set `spec` below `root` (default: $APD_BENCH_DATA).

    Raises MissingPrerequisite when the set or its split file is absent, CorruptFile when samples are missing or
    counts are wrong (unless the option `problems` is "exclude").
    """
    card, split, problems = card_of(spec), spec.options.get("split", "official"), spec.options.get("problems", "error")
    source = list_samples(card, split=split, problems=problems, roots=data_roots(root))
    return assemble(spec, card.name, source, image_size=image_size, resize=resize)


def assemble(spec: DatasetSpec, prefix: str, source: Source, *, image_size: int, resize: str) -> LoadedDataset:
    """The loaded set of a source with the splits train, val, test; sample ids are `prefix`/split/key.

    The spec's option `exclude` names samples to leave out; with `problems` "exclude" every image is decoded once, and
    those that cannot be are left out too.
    """
    cache, orientation = cache_root(), spec.options.get("orientation", "stored")
    leave_out = spec.options.get("problems") == "exclude"
    unwanted = [*spec.options.get("exclude", ())]
    splits: dict[str, ImageSplit] = {}
    for name in SPLITS:
        if items := source.splits.get(name):
            ids = tuple(f"{prefix}/{name}/{item.key}" for item in items)
            store = FilePixels(
                items, ids, source, spec.name,
                image_size=image_size, resize=resize, orientation=orientation, cache=cache,
            )  # fmt: skip
            labels = torch.tensor([item.label for item in items], dtype=torch.int64)
            published = _published(source, ids, partial=leave_out or bool(unwanted)) if name == "test" else {}
            splits[name] = ImageSplit(name, ids, labels, store, np.arange(len(items), dtype=np.int64), published)
            unwanted += [ids[row] for row in store.undecodable()] if leave_out else []
    test = splits.get("test")
    if test is None:
        raise CorruptFile(
            f"{spec.title or spec.name} has no test images.", hint=f"apd-bench datasets check {spec.name}"
        )
    origin = {"layout": source.layout, "split": source.split_source, "derived": list(source.derived), **source.notes}
    if test.published:
        origin["published_ids"] = PUBLISHED_IDS
    train, val = splits.get("train"), splits.get("val")
    return exclude_samples(LoadedDataset(spec, source.classes, spec.template, train, val, test, origin), unwanted)


def _published(source: Source, ids: tuple[str, ...], *, partial: bool) -> dict[int, tuple[str, ...]]:
    """RobustBench's list of ImageNet test images, where the user has put it into the set's folder.

    One image a line, as a path or a file name: `val/n01440764/ILSVRC2012_val_00000293.JPEG`. Raises CorruptFile for
    names that are not test images, unless `partial` says that some may be left out.
    """
    path = source.folder / PUBLISHED_IDS
    if not path.is_file() or source.layout == WEBDATASET:  # shards keep no file names
        return {}
    try:
        lines = read_lines(path)
    except CorruptFile as error:
        raise _not_a_list(path, "it is not text") from error
    names = {line.rpartition("/")[2] for line in lines}
    chosen = tuple(name for name in ids if name.rpartition("/")[2] in names)
    strange = sorted(names - {name.rpartition("/")[2] for name in chosen})
    if not chosen or (strange and not partial):
        raise _not_a_list(path, f"{len(strange)} of its {len(names)} names are no test image here: {strange[:3]}")
    return {len(chosen): chosen}


def _not_a_list(path: Path, reason: str) -> CorruptFile:
    return CorruptFile(
        f"{path} is not a list of test images: {reason}.",
        hint="Write one image a line, as val/n01440764/ILSVRC2012_val_00000293.JPEG; or delete the file, and a limit "
        "takes a balanced choice of its own.",
    )
