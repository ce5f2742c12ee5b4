"""The image sets that exist: embedded ones, benchmark sets from their cards, and any image folder. Torch-free.

Names that are resolved on demand: `NAME@publisher` and `NAME@derived` (another split), `NAME(problems='exclude')`
(leave out what cannot be used), `NAME(exclude=['ID'])`, `folder:PATH`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apd_bench.data.cards import Card, cards
from apd_bench.errors import CorruptFile, MissingPrerequisite, unknown_name
from apd_bench.resources import package_path
from apd_bench.specs import DatasetSpec, one_of, parse_call

REINSTALL = "Restore it: pip install --force-reinstall --no-deps apd-bench (or `git checkout` the file)."
BENCHMARK, FOLDER = "benchmark", "folder"
_OPTIONS = ("split", "problems", "exclude")


class _LazyDigest:
    """The field `digest` of a set on disk: what it was given, else computed on first use and kept."""

    def __get__(self, spec: FileDatasetSpec | None, owner: type[FileDatasetSpec]) -> Any:
        if spec is None:
            return None
        if spec.__dict__.get("digest") is None:
            spec.__dict__["digest"] = _compute_digest(spec)
        return spec.__dict__["digest"]

    def __set__(self, spec: FileDatasetSpec, value: str | None) -> None:
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

    Options: `split`, `problems` ("exclude" leaves out what cannot be used), `exclude` (a list of sample ids). Raises
    UsageError for options that do not exist, MissingPrerequisite for a folder that does not.
    """
    if name.startswith("folder:"):
        return folder_spec(name.removeprefix("folder:"))
    if "@" not in name and "(" not in name:
        return None
    head, options = parse_call(name)
    head, _, split = head.partition("@")
    if head == FOLDER and "path" in options:
        return folder_spec(str(options.pop("path")), **_checked(head, options))
    card = _card(head)
    if card is None:
        return None
    return benchmark_spec(card, **_checked(card.name, {"split": split, **options} if split else options))


def benchmark_spec(
    card: Card, *, split: str = "official", problems: str = "error", exclude: Sequence[str] = ()
) -> DatasetSpec:
    """The spec of a benchmark set with the given split; the name says what is not the official set."""
    changed = _changed(split, problems, exclude)
    return FileDatasetSpec(
        name=_written(card.name, changed),
        loader="apd_bench.data.benchmark:load",
        template=card.template,
        title=card.title if split == "official" else f"{card.title} ({split} split)",
        group=BENCHMARK,
        num_classes=len(card.classes),
        counts=_expected(card, split) if "problems" not in changed and not exclude else {},
        options={**({"card": card.name} if changed else {}), **changed},
        licence=card.licence,
        source=card.source,
        citation=card.citation,
        description=card.description,
        aliases=card.aliases if not changed else (),
    )


def folder_spec(
    written: str, *, split: str = "official", problems: str = "error", exclude: Sequence[str] = ()
) -> DatasetSpec:
    """The spec of an image folder; see `folder.py` for what it may hold. It is called what the user called it."""
    from apd_bench.data.folder import describe_folder

    path = Path(written).expanduser()
    if not path.is_dir():
        raise MissingPrerequisite(f"There is no folder {path}.", hint="Write folder:PATH with the folder of a set.")
    full = path.resolve()
    template, classes, licence = describe_folder(full)
    changed = _changed(split, problems, exclude)
    return FileDatasetSpec(
        name=_written(FOLDER, {"path": written, **changed}) if changed or " " in written else f"folder:{written}",
        loader="apd_bench.data.folder:load",
        template=template,
        title=full.name,
        group=FOLDER,
        num_classes=len(classes),
        options={"path": str(full), **changed},
        licence=licence,
    )


def class_names(spec: DatasetSpec) -> tuple[str, ...]:
    """The class names of a set in label order, from its card or folder names; a plug-in's set is opened for them."""
    if spec.group == BENCHMARK:
        card = _card(str(spec.options.get("card", spec.name)))
        if card is not None:
            return card.classes
    if spec.group == FOLDER:
        from apd_bench.data.folder import describe_folder

        return describe_folder(Path(str(spec.options["path"])))[1]
    if spec.group == "embedded":
        return tuple(read_card(Path(str(spec.options["path"])).with_suffix(".json"))["classes"])
    from apd_bench.data.load import load_dataset

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
            counts=_totals(card["counts"]),
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


def _checked(name: str, options: dict[str, Any]) -> dict[str, Any]:
    for option in options:
        if option not in _OPTIONS:
            raise unknown_name(f"option of the dataset {name}", option, _OPTIONS)
    if isinstance(options.get("exclude"), str):
        options = {**options, "exclude": [options["exclude"]]}
    return options


def _changed(split: str, problems: str, exclude: Sequence[str]) -> dict[str, Any]:
    one_of("Split", split, ("official", "publisher", "derived"))
    one_of("Treatment of problems", problems, ("error", "exclude"))
    options: dict[str, Any] = {} if split == "official" else {"split": split}
    if problems != "error":
        options["problems"] = problems
    if exclude:
        options["exclude"] = sorted(map(str, exclude))
    return options


def _written(name: str, options: dict[str, Any]) -> str:
    """The name with its options, as it can be typed again."""
    rest = dict(options)
    if "path" not in rest and "split" in rest:
        name = f"{name}@{rest.pop('split')}"
    inner = ", ".join(f"{key}={value!r}" for key, value in rest.items())
    return f"{name}({inner})" if inner else name


def _expected(card: Card, split: str) -> dict[str, int]:
    counts = card.counts if split == "official" else card.publisher_counts if split == "publisher" else {}
    return {name: count for name, count in counts.items() if name in ("train", "val", "test")}


def _compute_digest(spec: DatasetSpec) -> str:
    if spec.group == FOLDER:
        from apd_bench.data.folder import folder_digest

        return folder_digest(spec)
    from apd_bench.data.places import data_roots
    from apd_bench.data.samples import data_digest

    card = cards()[spec.options.get("card", spec.name)]
    return data_digest(card, spec.options.get("split", "official"), data_roots())


def _totals(counts: dict[str, Any]) -> dict[str, int]:
    """Images per split, whether the card gives totals or one number per class."""
    return {
        name: sum(value.values()) if isinstance(value, dict) else sum(value) if isinstance(value, list) else int(value)
        for name, value in counts.items()
        if name in ("train", "val", "test")
    }
