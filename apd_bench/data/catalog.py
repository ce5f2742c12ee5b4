"""The image sets that exist: embedded ones, benchmark sets from their cards, and any image folder. Torch-free.

Names that are resolved on demand: `NAME@publisher` and `NAME@derived` (another split), `NAME(problems='exclude')`
(leave unusable samples out), `folder:PATH`.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from apd_bench.data.cards import Card, cards
from apd_bench.errors import CorruptFile, MissingPrerequisite, unknown_name
from apd_bench.resources import package_path
from apd_bench.specs import DatasetSpec, one_of, parse_call

REINSTALL = "Restore it: pip install --force-reinstall --no-deps apd-bench (or `git checkout` the file)."
BENCHMARK, FOLDER = "benchmark", "folder"
_OPTIONS = ("split", "problems")


@dataclass(frozen=True, kw_only=True)
class FileDatasetSpec(DatasetSpec):
    """A set on the user's disk. Its digest covers class names and split, and is computed when the identity is asked."""

    def identity(self) -> dict[str, object]:
        """As any set's, with the digest of the class names and of the files that decide labels and splits.

        A folder's name is its last part only, so that moving it changes nothing.
        """
        plain = super().identity()
        if self.group == FOLDER:
            from apd_bench.data.folder import folder_digest

            return plain | {"name": f"folder:{self.title}", "digest": self.digest or folder_digest(self)}
        from apd_bench.data.places import data_roots
        from apd_bench.data.samples import data_digest

        card = cards()[self.options.get("card", self.name)]
        found = self.digest or data_digest(card, self.options.get("split", "official"), data_roots())
        return plain | {"digest": found}


def builtin() -> Iterator[DatasetSpec]:
    """Every set that ships with, or is known to, the package; the embedded ones first."""
    yield from embedded(package_path("embedded", "datasets"))
    yield from (benchmark_spec(card) for card in cards().values())


def resolve(name: str) -> DatasetSpec | None:
    """The spec behind `folder:PATH`, `NAME@SPLIT` or `NAME(split=..., problems=...)`; None for any other name.

    Raises UsageError for options that do not exist, MissingPrerequisite for a folder that does not.
    """
    if name.startswith("folder:"):
        return folder_spec(Path(name.removeprefix("folder:")).expanduser())
    if "@" not in name and "(" not in name:
        return None
    head, options = parse_call(name)
    head, _, split = head.partition("@")
    card = _card(head)
    if card is None:
        return None
    if split:
        options = {"split": split, **options}
    for option in options:
        if option not in _OPTIONS:
            raise unknown_name(f"option of the dataset {head}", option, _OPTIONS)
    return benchmark_spec(card, **{key: str(value) for key, value in options.items()})


def benchmark_spec(card: Card, *, split: str = "official", problems: str = "error") -> DatasetSpec:
    """The spec of a benchmark set with the given split; the name says where it is not the official one."""
    one_of("Split", split, ("official", "publisher", "derived"))
    one_of("Treatment of problems", problems, ("error", "exclude"))
    name = card.name if split == "official" else f"{card.name}@{split}"
    changed: dict[str, Any] = {} if split == "official" else {"split": split}
    if problems != "error":
        name, changed = f"{name}(problems='{problems}')", {**changed, "problems": problems}
    return FileDatasetSpec(
        name=name,
        loader="apd_bench.data.benchmark:load",
        template=card.template,
        title=card.title if split == "official" else f"{card.title} ({split} split)",
        group=BENCHMARK,
        num_classes=len(card.classes),
        counts=dict(card.counts) if split == "official" else {},
        options={**({"card": card.name} if changed else {}), **changed},
        licence=card.licence,
        source=card.source,
        citation=card.citation,
        description=card.description,
        aliases=card.aliases if not changed else (),
    )


def folder_spec(path: Path) -> DatasetSpec:
    """The spec of an image folder; see `folder.py` for what it may hold."""
    from apd_bench.data.folder import describe_folder

    if not path.is_dir():
        raise MissingPrerequisite(f"There is no folder {path}.", hint="Write folder:PATH with the folder of a set.")
    full = path.resolve()
    template, classes, licence = describe_folder(full)
    return FileDatasetSpec(
        name=f"folder:{full}",
        loader="apd_bench.data.folder:load",
        template=template,
        title=full.name,
        group=FOLDER,
        num_classes=len(classes),
        options={"path": str(full)},
        licence=licence,
        aliases=() if str(path) == str(full) else (f"folder:{path}",),
    )


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


def _totals(counts: dict[str, Any]) -> dict[str, int]:
    """Images per split, whether the card gives totals or one number per class."""
    return {
        name: sum(value.values()) if isinstance(value, dict) else sum(value) if isinstance(value, list) else int(value)
        for name, value in counts.items()
        if name in ("train", "val", "test")
    }
