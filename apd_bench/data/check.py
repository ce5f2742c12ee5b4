"""What of a set is on this machine: layout, counts, what is missing, and the exact step that mends it. Torch-free."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from apd_bench.data.cards import Card, cards
from apd_bench.data.images import decode
from apd_bench.data.listing import Item, Source
from apd_bench.data.packed import read_arrays
from apd_bench.data.places import PUBLISHED_IDS, WEBDATASET, data_roots, find_places, find_split_file
from apd_bench.data.samples import list_samples
from apd_bench.errors import CorruptFile, MissingPrerequisite, UserError
from apd_bench.specs import DatasetSpec

READY, INCOMPLETE, NO_SPLIT, ABSENT = "ready", "incomplete", "no official split", "absent"
_TINY = 8


@dataclass(frozen=True, kw_only=True)
class Finding:
    """The state of one set; `fix` is empty where nothing needs mending."""

    name: str
    state: str
    layout: str = ""
    folder: str = ""
    counts: dict[str, int] = field(default_factory=dict)
    message: str = ""
    fix: str = ""
    undecodable: tuple[str, ...] = ()


def check_set(
    spec: DatasetSpec, roots: tuple[Path, ...], *, images: bool = False, on_image: Callable[[int], None] | None = None
) -> Finding:
    """Looks at everything that the set `spec` needs; with `images`, decodes every image too."""
    if spec.group == "embedded":
        return _check_embedded(spec)
    try:
        source = _source(spec, roots)
    except (MissingPrerequisite, CorruptFile) as error:
        return _failed(spec, error, roots)
    bad = tuple(undecodable(source, on_image)) if images else ()
    message = f"{len(bad)} images cannot be decoded: {', '.join(bad[:5])}" if bad else ""
    fix = (
        f"Restore them, or leave them out (recorded): \"{spec.name.partition('(')[0]}(problems='exclude')\""
        if bad
        else ""
    )
    return Finding(
        name=spec.name,
        state=INCOMPLETE if bad else READY,
        layout=source.layout,
        folder=str(source.folder),
        counts={name: len(source.splits[name]) for name in ("train", "val", "test") if source.splits.get(name)},
        message=message or _remark(source, spec.options.get("card", spec.name)),
        fix=fix,
        undecodable=bad,
    )


def what_is_missing(spec: DatasetSpec) -> str | None:
    """Why the set cannot be opened here, as far as a look at folder names can tell; None where nothing is missing.

    Cheap enough for a plan: no image folder is read and no file is opened.
    """
    if spec.group != "benchmark":
        return None
    roots, card, split = data_roots(), _card(spec), spec.options.get("split", "official")
    places = find_places(card, roots)
    if not places:
        return f"{card.title} is not on this machine: apd-bench datasets prepare {card.name}"
    if split == "official" and card.split_file:
        if find_split_file(card, roots) is None:
            return f"{card.split_file} is missing: apd-bench datasets prepare {card.name}"
        if all(place.layout == WEBDATASET for place in places):
            return f"{card.split_file} needs the image files, there are only webdataset shards of {card.title}"
    return None


def undecodable(source: Source, on_image: Callable[[int], None] | None = None) -> Iterator[str]:
    """The keys of all images of `source` that cannot be read or decoded."""
    done = 0
    for items in source.splits.values():
        for item in items:
            if not _decodes(source, item):
                yield item.key
            done += 1
            if on_image is not None:
                on_image(done)


def _decodes(source: Source, item: Item) -> bool:
    if item.path in source.arrays:
        return True
    path = Path(item.path) if item.path else source.base / item.key
    try:
        with path.open("rb") as handle:
            handle.seek(item.offset)
            decode(handle.read(item.size), _TINY, "squash", str(path))
    except (OSError, CorruptFile):
        return False
    return True


def _source(spec: DatasetSpec, roots: tuple[Path, ...]) -> Source:
    split, problems = spec.options.get("split", "official"), spec.options.get("problems", "error")
    if spec.group == "folder":
        from apd_bench.data.folder import read_folder

        source = read_folder(Path(spec.options["path"]), split)
        if source.problems and problems == "error":
            raise CorruptFile("; ".join(source.problems[:5]), hint="Remove or restore these files.")
        return source
    return list_samples(_card(spec), split=split, problems=problems, roots=roots)


def _failed(spec: DatasetSpec, error: UserError, roots: tuple[Path, ...]) -> Finding:
    state, layout, folder = INCOMPLETE, "", ""
    if spec.group == "benchmark":
        card = _card(spec)
        places = find_places(card, roots)
        if not places:
            state = ABSENT
        else:
            layout, folder = places[0].layout, str(places[0].folder)
            files = any(place.layout != WEBDATASET for place in places)
            if card.split_file and (find_split_file(card, roots) is None or not files):
                state = NO_SPLIT
    return Finding(name=spec.name, state=state, layout=layout, folder=folder, message=error.message, fix=error.hint)


def _check_embedded(spec: DatasetSpec) -> Finding:
    path = Path(spec.options["path"])
    try:
        read_arrays(path, spec.digest)
    except UserError as error:
        return Finding(name=spec.name, state=INCOMPLETE, layout="embedded", message=error.message, fix=error.hint)
    return Finding(name=spec.name, state=READY, layout="embedded", folder=str(path.parent), counts=dict(spec.counts))


def _remark(source: Source, name: str) -> str:
    remarks = []
    if name == "imagenet" and not source.folder.joinpath(PUBLISHED_IDS).is_file():
        remarks.append(f"without {PUBLISHED_IDS} of RobustBench, --limit 5000 takes a balanced choice of its own")
    if source.derived:
        remarks.append(f"derived: {', '.join(source.derived)}")
    if "no_train" in source.notes:
        remarks.append(f"no training images ({source.notes['no_train']})")
    if "excluded" in source.notes:
        remarks.append(f"{len(source.notes['excluded'])} samples left out")
    if "counts" in source.notes:
        remarks.append(str(source.notes["counts"]))
    return "; ".join(remarks)


def _card(spec: DatasetSpec) -> Card:
    return cards()[spec.options.get("card", spec.name)]
