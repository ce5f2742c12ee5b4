"""What of a set is on this machine: layout, counts, what is missing, and the exact step that mends it. Torch-free."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from apd_bench.core.errors import CorruptFile, UserError
from apd_bench.core.specs import DatasetSpec
from apd_bench.data.cards import Card, cards
from apd_bench.data.images import DEEP, TURNED, remarks
from apd_bench.data.listing import Item, Source
from apd_bench.data.names import excluding
from apd_bench.data.packed import read_arrays
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


def check_set(
    spec: DatasetSpec, roots: tuple[Path, ...], *, images: bool = False, on_image: Callable[[int], None] | None = None
) -> Finding:
    """Looks at everything that the set `spec` needs; with `images`, decodes every image too."""
    if spec.group == "embedded":
        return _check_embedded(spec)
    try:
        source = _source(spec, roots)
    except UserError as error:
        return _failed(spec, error, roots)
    seen = look(source, on_image) if images else Seen()
    bad = tuple(seen.undecodable)
    lacking = bad and spec.options.get("problems") != "exclude"
    said = [
        f"{len(bad)} images cannot be decoded{'' if lacking else ' and are left out'}: {', '.join(bad[:5])}"
    ] * bool(bad)
    said += [] if lacking else [_remark(source, spec.options.get("card", spec.name)), *seen.remarks(spec)]
    return Finding(
        name=spec.name,
        state=INCOMPLETE if lacking else READY,
        layout=source.layout,
        folder=str(source.folder),
        counts={name: len(source.splits[name]) for name in ("train", "val", "test") if source.splits.get(name)},
        message="; ".join(filter(None, said)),
        fix=f"Restore them, or leave them out (recorded): {excluding(spec.name)}" if lacking else "",
        undecodable=bad,
    )


def what_is_missing(spec: DatasetSpec) -> str | None:
    """Why the set cannot be opened here, by the same look at its files as `check_set`; None where nothing is missing.

    No image is opened.
    """
    if spec.group == "embedded":  # part of the package, and checked when it is opened
        return None
    finding = check_set(spec, data_roots())
    if finding.state == ABSENT:
        return f"{spec.title} is not on this machine: apd-bench datasets prepare {_card(spec).name}"
    return None if finding.state == READY else f"{finding.message} {finding.fix}".strip()


@dataclass
class Seen:
    """What decoding all images of a set has shown, by sample key."""

    undecodable: list[str] = field(default_factory=list)
    turned: int = 0
    deep: int = 0

    def remarks(self, spec: DatasetSpec) -> list[str]:
        """One sentence for what is treated by a rule that a reader may not expect."""
        exif = spec.options.get("orientation") == "exif"
        how = "are turned as it says" if exif else "are read as stored (orientation='exif' turns them)"
        turned = f"{self.turned} images have an EXIF orientation and {how}"
        deep = f"{self.deep} images have 16-bit grey values, which are scaled to 8 bits"
        return [text for text, count in ((turned, self.turned), (deep, self.deep)) if count]


def look(source: Source, on_image: Callable[[int], None] | None = None) -> Seen:
    """Reads and decodes every image of `source`."""
    seen = Seen()
    for done, item in enumerate((item for items in source.splits.values() for item in items), 1):
        try:
            found = _remarks(source, item)
        except (OSError, CorruptFile):
            seen.undecodable.append(item.key)
        else:
            seen.turned += TURNED in found
            seen.deep += DEEP in found
        if on_image is not None:
            on_image(done)
    return seen


def _remarks(source: Source, item: Item) -> frozenset[str]:
    if item.path in source.arrays:
        return frozenset()
    path = Path(item.path) if item.path else source.base / item.key
    with path.open("rb") as handle:
        handle.seek(item.offset)
        return remarks(handle.read(item.size), str(path))


def _source(spec: DatasetSpec, roots: tuple[Path, ...]) -> Source:
    split, problems = spec.options.get("split", "official"), spec.options.get("problems", "error")
    if spec.group == "folder":
        from apd_bench.data.folder import list_folder

        return list_folder(spec)
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
    said = []
    if name == "imagenet" and not source.folder.joinpath(PUBLISHED_IDS).is_file():
        said.append(f"without {PUBLISHED_IDS} of RobustBench, --limit 5000 takes a balanced choice of its own")
    if source.derived:
        said.append(f"derived: {', '.join(source.derived)}")
    if "no_train" in source.notes:
        said.append(f"no training images ({source.notes['no_train']})")
    if "test_images" in source.notes:
        said.append(f"test images: {source.notes['test_images']}")
    if "shared_names" in source.notes:
        said.append(f"several classes share the name {source.notes['shared_names'][0]}")
    if "classes_without_images" in source.notes:
        said.append(f"{len(source.notes['classes_without_images'])} classes without images")
    if "excluded" in source.notes:
        said.append(f"{len(source.notes['excluded'])} samples left out")
    if "counts" in source.notes:
        said.append(str(source.notes["counts"]))
    return "; ".join(said)


def _card(spec: DatasetSpec) -> Card:
    return cards()[spec.options.get("card", spec.name)]
