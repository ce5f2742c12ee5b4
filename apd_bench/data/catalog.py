"""The image sets that exist: embedded ones, benchmark sets from their cards, and any image folder. Torch-free.

Names that are resolved on demand: `NAME@publisher` and `NAME@derived` (another split), `NAME(problems='exclude')`
(leave out what cannot be used), `NAME(exclude=['ID'])`, `NAME(template=['a {}.', 'the {}.'])`,
`NAME(orientation='exif')`, `folder:PATH`, `folder:PATH(OPTIONS)`, `folder(path='PATH', OPTIONS)`.
"""

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile, MissingPrerequisite, UnknownName, UsageError, unknown_name
from apd_bench.core.files import is_path
from apd_bench.core.package_data import package_path
from apd_bench.core.specs import DatasetSpec, one_of
from apd_bench.core.text import is_utf8
from apd_bench.data.cards import Card, card_of, cards
from apd_bench.data.names import FOLDER, parts, written_name
from apd_bench.data.templates import ensemble

REINSTALL = "Restore it: pip install --force-reinstall --no-deps apd-bench (or `git checkout` the file)."
BENCHMARK = "benchmark"
_CHOICES = {
    "split": ("official", "publisher", "derived"),
    "problems": ("error", "exclude"),
    "orientation": ("stored", "exif"),
}
_OPTIONS = (*_CHOICES, "exclude", "template")


class _LazyDigest:
    """The field `digest` of a set on disk: what it was given, else computed on first use and kept."""

    def __get__(self, spec: "FileDatasetSpec | None", owner: "type[FileDatasetSpec]") -> Any:
        if spec is None:
            return None
        if spec.__dict__.get("digest") is None:
            spec.__dict__["digest"] = _compute_digest(spec)
        return spec.__dict__["digest"]

    def __set__(self, spec: "FileDatasetSpec", value: str | None) -> None:
        spec.__dict__["digest"] = value


@dataclass(frozen=True, kw_only=True)
class FileDatasetSpec(DatasetSpec):
    """A set on the user's disk. Its digest covers class names and split, and is computed when it is first read."""


FileDatasetSpec.digest = _LazyDigest()  # type: ignore[assignment]


def builtin() -> Iterator[DatasetSpec]:
    """Every set that ships with, or is known to, the package; the embedded ones first."""
    yield from embedded(package_path("embedded", "datasets"))
    yield from (benchmark_spec(card) for card in cards().values())


def resolve(name: str) -> DatasetSpec | None:
    """The spec behind `folder:PATH`, `folder(path='...')`, `NAME@SPLIT` or `NAME(option=...)`; None for other names.

    Options: `split`, `problems` ("exclude" leaves out what cannot be used), `exclude` (a list of sample ids),
    `template` (one, a list, or the name of an ensemble), `orientation` ("exif" turns images as their tag says); for a
    set inside the package `template` alone. Raises UsageError for options that do not exist, MissingPrerequisite for a
    folder that does not.
    """
    if not name.startswith("folder:") and "@" not in name and "(" not in name:
        if is_path(name):
            raise UnknownName(f"'{name}' is a path and no set's name.", hint=f"For images of your own: folder:{name}.")
        return None
    head, options = parts(name)
    if head == FOLDER and "path" in options:
        return folder_spec(str(options.pop("path")), **options)
    if (card := _card(head)) is not None:
        return benchmark_spec(card, **options)
    for spec in embedded(package_path("embedded", "datasets")):
        if head.lower() in (spec.name, *spec.aliases):
            changed, _, template = _read_options(spec.name, options, spec.template, ("template",))
            return replace(spec, name=written_name(spec.name, changed), aliases=(), template=template)
    return None


def is_folder(name: str) -> bool:
    """Whether `name` is that of an image folder that is there."""
    return name.startswith("folder:") and Path(parts(name)[1]["path"]).expanduser().is_dir()


def benchmark_spec(card: Card, **options: Any) -> DatasetSpec:
    """The spec of a benchmark set with options as in `resolve`; the name says what is not the official set."""
    changed, rest, template = _read_options(card.name, options, card.template)
    split = changed.get("split", "official")
    return FileDatasetSpec(
        name=written_name(card.name, changed),
        loader="apd_bench.data.benchmark:load",
        title=card.title if split == "official" else f"{card.title} ({split} split)",
        group=BENCHMARK,
        num_classes=len(card.classes),
        counts=_expected(card, split) if "problems" not in changed and "exclude" not in changed else {},
        options={"card": card.name, **rest} if changed else {},
        licence=card.licence,
        source=card.source,
        citation=card.citation,
        description=card.description,
        aliases=card.aliases if not changed else (),
        template=template,
    )


def folder_spec(written: str, **options: Any) -> DatasetSpec:
    """The spec of an image folder; see `folder.py` for what it may hold. It is called what the user called it."""
    from apd_bench.data.folder import describe_folder

    path = Path(written).expanduser()
    full = path.resolve()
    if not is_utf8(f"{written}{full}"):
        raise UsageError(f"The path {full} is not UTF-8, so no record could name it.", hint="Give a link to it.")
    if not path.is_dir():
        what = "is no folder" if path.exists() else "does not exist"
        raise MissingPrerequisite(
            f"{path} {what}.", hint="Write folder:PATH with the folder of a set; in quotes where the path has blanks."
        )
    if options.get("split") == "publisher":
        raise UsageError("An image folder has no publisher's split.", hint="Leave it out, or use split='derived'.")
    template, classes, licence = describe_folder(full)
    changed, rest, template = _read_options(FOLDER, options, template)
    return FileDatasetSpec(
        name=written_name(FOLDER, {"path": written, **changed}),
        loader="apd_bench.data.folder:load",
        title=full.name,
        group=FOLDER,
        num_classes=len(classes),
        options={"path": str(full), **rest},
        licence=licence,
        template=template,
    )


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The class names of a set in label order, from its card or folder names; a plug-in's set is opened for them."""
    if spec.group == BENCHMARK:
        return card_of(spec).classes
    if spec.group == FOLDER:
        from apd_bench.data.folder import describe_folder

        return describe_folder(Path(str(spec.options["path"])))[1]
    if spec.group == "embedded":
        return tuple(read_card(Path(str(spec.options["path"])).with_suffix(".json"))["classes"])
    from apd_bench.data.splits import load_dataset

    return load_dataset(spec, image_size=spec.image_size or 224).classes


def embedded(folder: Path) -> Iterator[DatasetSpec]:
    """The embedded sets whose cards lie in `folder`, by name; the digest is that of the image file."""
    for path in sorted(folder.glob("*.json")):
        card = read_card(path)
        yield DatasetSpec(
            name=card["name"],
            loader="apd_bench.data.embedded:load",
            template=card["template"],
            title=card.get("title", card["name"]),
            group="embedded",
            num_classes=len(card["classes"]),
            counts=card["counts"],
            image_size=int(card["image_size"]),
            version=int(card.get("version", 1)),
            digest=card["npz_sha256"],
            options={"path": str(path.with_suffix(".npz"))},
            licence=card.get("licence_summary", ""),
            source=card.get("source", ""),
            description=card.get("description", ""),
            aliases=(f"embedded:{card['name']}",),
        )


def read_card(path: Path) -> dict[str, Any]:
    """The card of an embedded set; raises CorruptFile when it is not JSON or lacks a required key."""
    try:
        card = json.loads(path.read_text("utf-8"))
        missing = {"name", "classes", "template", "counts", "image_size", "npz_sha256"} - set(card)
    except (OSError, ValueError, TypeError) as error:
        raise CorruptFile(f"The dataset card {path} cannot be read: {error}.", hint=REINSTALL) from error
    if missing:
        raise CorruptFile(f"The dataset card {path} lacks {', '.join(sorted(missing))}.", hint=REINSTALL)
    return dict(card)


def _card(name: str) -> Card | None:
    return next((card for card in cards().values() if name.lower() in (card.name, *card.aliases)), None)


def _read_options(
    name: str, options: Mapping[str, Any], template: str, known: tuple[str, ...] = _OPTIONS
) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The options that differ from their defaults, in one order and spelling; these without the template; the template.

    Raises UsageError for options that are not `known`, and for bad values.
    """
    for option in options:
        if option not in known:
            raise unknown_name(f"option of the dataset {name}", option, known)
    changed: dict[str, Any] = {}
    for key, choices in _CHOICES.items():
        value = one_of(f"The option {key}", options.get(key, choices[0]), choices)
        if value != choices[0]:
            changed[key] = value
    if exclude := options.get("exclude"):
        listed = [exclude] if isinstance(exclude, str) else exclude
        if not isinstance(listed, (list, tuple)) or not all(isinstance(item, str) for item in listed):
            raise UsageError(f"exclude = {exclude!r} is no list of sample ids.", hint="Write exclude=['ID', 'ID'].")
        changed["exclude"] = sorted(set(listed))
    if "template" not in options:
        return changed, changed, template
    return {**changed, "template": options["template"]}, changed, ensemble(options["template"])


def _expected(card: Card, split: str) -> dict[str, int]:
    counts = card.counts if split == "official" else card.publisher_counts if split == "publisher" else {}
    return {name: count for name, count in counts.items() if name in ("train", "val", "test")}


def _compute_digest(spec: DatasetSpec) -> str:
    if spec.group == FOLDER:
        from apd_bench.data.folder import folder_digest

        return folder_digest(spec)
    from apd_bench.data.places import data_roots
    from apd_bench.data.samples import data_digest

    return data_digest(card_of(spec), spec.options.get("split", "official"), data_roots())
