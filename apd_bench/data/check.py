"""What of a set is on this machine: layout, counts, what is missing, and the exact step that mends it. Torch-free."""

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile, UserError
from apd_bench.core.specs import DatasetSpec
from apd_bench.core.text import printable
from apd_bench.data.cards import card_of
from apd_bench.data.embedded import read_arrays
from apd_bench.data.images import DEEP, TURNED, remarks
from apd_bench.data.listing import SPLITS, Source
from apd_bench.data.names import excluding
from apd_bench.data.places import PUBLISHED_IDS, WEBDATASET, data_roots, find_places, find_split_file
from apd_bench.data.samples import list_samples

READY, INCOMPLETE, NO_SPLIT, ABSENT = "ready", "incomplete", "no official split", "absent"


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


def check_set(spec: DatasetSpec, roots: tuple[Path, ...], *, images: bool = False) -> Finding:
    """Looks at everything that the set `spec` needs; with `images`, decodes every image too."""
    if spec.group == "embedded":
        try:
            read_arrays(Path(spec.options["path"]), spec.digest)
        except UserError as error:
            return Finding(name=spec.name, state=INCOMPLETE, layout="embedded", message=error.message, fix=error.hint)
        folder = str(Path(spec.options["path"]).parent)
        return Finding(name=spec.name, state=READY, layout="embedded", folder=folder, counts=dict(spec.counts))
    try:
        if spec.group == "folder":
            from apd_bench.data.folder import list_folder

            source = list_folder(spec)
        else:
            split, problems = spec.options.get("split", "official"), spec.options.get("problems", "error")
            source = list_samples(card_of(spec), split=split, problems=problems, roots=roots)
    except UserError as error:
        return _failed(spec, error, roots)
    bad, marks = _decode_all(source) if images else ({}, Counter[str]())
    if not source.splits.get("test"):
        none = CorruptFile(f"{spec.title or spec.name} has no test images.", hint="Put some into the set's folder.")
        return _failed(spec, none, roots)
    lacking = bool(bad) and spec.options.get("problems") != "exclude"
    said = []
    if bad:
        fate = "" if lacking else " and are left out"
        said.append(f"{len(bad)} images cannot be decoded{fate}: {', '.join([*bad][:5])} ({next(iter(bad.values()))})")
    if not lacking:
        said += [*_remarks_on_set(source, spec), *_remarks_on_images(marks, spec)]
    return Finding(
        name=spec.name,
        state=INCOMPLETE if lacking else READY,
        layout=source.layout,
        folder=str(source.folder),
        counts={name: len(source.splits[name]) for name in SPLITS if source.splits.get(name)},
        message="; ".join(said),
        fix=f"Restore them, or leave them out (recorded): {excluding(spec.name)}" if lacking else "",
        undecodable=tuple(bad),
    )


def what_is_missing(spec: DatasetSpec) -> str | None:
    """Why the set cannot be opened here, by the same look at its files as `check_set`; None where nothing is missing.

    No image is opened.
    """
    if spec.group == "embedded":  # part of the package, and checked when it is opened
        return None
    finding = check_set(spec, data_roots())
    if finding.state == ABSENT:
        return f"{spec.title} is not on this machine: apd-bench datasets prepare {card_of(spec).name}"
    return None if finding.state == READY else f"{finding.message} {finding.fix}".strip()


def _decode_all(source: Source) -> tuple[dict[str, str], Counter[str]]:
    """The keys of the images that cannot be decoded, with the reasons, and how many have each mark of `remarks`."""
    bad, marks = dict[str, str](), Counter[str]()
    for item in source.items() if not source.arrays else ():
        try:
            marks.update(remarks(item.read(source.base), str(item.file(source.base))))
        except (OSError, CorruptFile) as error:
            bad[item.key] = str(error).rpartition("decoded: ")[2].removesuffix(".")
    return bad, marks


def _remarks_on_images(marks: Counter[str], spec: DatasetSpec) -> Iterator[str]:
    """One sentence for what is treated by a rule that a reader may not expect."""
    if marks[TURNED]:
        exif = spec.options.get("orientation") == "exif"
        how = "are turned as it says" if exif else "are read as stored (orientation='exif' turns them)"
        yield f"{marks[TURNED]} images have an EXIF orientation and {how}"
    if marks[DEEP]:
        yield f"{marks[DEEP]} images have 16-bit grey values, which are scaled to 8 bits"


_REMARKS: dict[str, Callable[[Any], str]] = {  # what is said of each of a source's notes
    "no_train": "no training images ({})".format,
    "test_images": "test images: {}".format,
    "not_read": lambda names: f"folders beside the splits, not read: {', '.join(map(printable, names))}",
    "shared_names": lambda names: f"several classes share the name {names[0]}",
    "classes_without_images": lambda names: f"{len(names)} classes without images",
    "excluded": lambda names: f"{len(names)} samples left out",
    "counts": str,
}


def _remarks_on_set(source: Source, spec: DatasetSpec) -> Iterator[str]:
    imagenet = spec.options.get("card", spec.name) == "imagenet"
    if imagenet and not source.folder.joinpath(PUBLISHED_IDS).is_file():
        yield f"without {PUBLISHED_IDS} of RobustBench, --limit 5000 takes a balanced choice of its own"
    if source.derived:
        yield f"derived: {', '.join(source.derived)}"
    yield from (say(source.notes[name]) for name, say in _REMARKS.items() if name in source.notes)


def _failed(spec: DatasetSpec, error: UserError, roots: tuple[Path, ...]) -> Finding:
    state, layout, folder = INCOMPLETE, "", ""
    if spec.group == "benchmark":
        card = card_of(spec)
        places = find_places(card, roots)
        state = INCOMPLETE if places else ABSENT
        if places:
            layout, folder = places[0].layout, str(places[0].folder)
            files = any(place.layout != WEBDATASET for place in places)
            if card.split_file and (find_split_file(card, roots) is None or not files):
                state = NO_SPLIT
    return Finding(name=spec.name, state=state, layout=layout, folder=folder, message=error.message, fix=error.hint)
