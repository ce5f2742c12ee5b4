"""The image sets that exist: the embedded ones from their cards. Torch-free."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from apd_bench.errors import CorruptFile
from apd_bench.resources import package_path
from apd_bench.specs import DatasetSpec

REINSTALL = "Restore it: pip install --force-reinstall --no-deps apd-bench (or `git checkout` the file)."


def builtin() -> Iterator[DatasetSpec]:
    """Every set that ships with, or is known to, the package; the embedded ones first."""
    yield from embedded(package_path("embedded", "datasets"))


def resolve(name: str) -> DatasetSpec | None:
    """The spec behind a name that is not in the catalog, or None."""
    return None


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


def _totals(counts: dict[str, Any]) -> dict[str, int]:
    """Images per split, whether the card gives totals or one number per class."""
    return {
        name: sum(value.values()) if isinstance(value, dict) else sum(value) if isinstance(value, list) else int(value)
        for name, value in counts.items()
        if name in ("train", "val", "test")
    }
