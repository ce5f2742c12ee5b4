"""Where data lies on this machine: data roots, and which layout of a set is there. Torch-free."""

import os
from dataclasses import dataclass
from pathlib import Path

from platformdirs import user_data_path

from apd_bench.core.errors import MissingPrerequisite
from apd_bench.data.cards import Card

DATA_VARIABLE = "APD_BENCH_DATA"
WEBDATASET = "webdataset"
PUBLISHED_IDS = "imagenet_test_image_ids.txt"  # RobustBench's 5,000, which a user may put into the set's folder


@dataclass(frozen=True)
class Place:
    """A set found on disk: the layout's name, its folder, and the folder that its image paths are relative to."""

    layout: str
    folder: Path
    images: Path


def data_roots(*given: Path | None) -> tuple[Path, ...]:
    """The folders that hold the sets: those given, else those in $APD_BENCH_DATA, else the user's data folder."""
    if roots := tuple(root.expanduser() for root in given if root is not None):
        return roots
    written = [part for part in os.environ.get(DATA_VARIABLE, "").split(os.pathsep) if part.strip()]
    if written:
        return tuple(Path(part.strip()).expanduser() for part in written)
    return (user_data_path("apd-bench", appauthor=False) / "datasets",)


def find_places(card: Card, roots: tuple[Path, ...]) -> list[Place]:
    """Every copy of the set below `roots`, CoOp's layout first, webdataset shards last."""
    found = []
    for home in card.homes:
        for root in roots:
            folder = root / home.folder
            if folder.joinpath(home.probe or home.images).is_dir():
                found.append(Place(home.layout, folder, folder / home.images))
    for root in roots:
        for name in card.shards:
            for folder in (root / name, root / "clip-benchmark" / name):
                if folder.joinpath("test", "nshards.txt").is_file():
                    found.append(Place(WEBDATASET, folder, folder))
    return found


def find_split_file(card: Card, roots: tuple[Path, ...]) -> Path | None:
    """CoOp's split file of the set, wherever it lies in one of the set's folders or directly in a root."""
    for root in roots:
        for folder in [*(home.folder for home in card.homes), "."]:
            path = root / folder / card.split_file
            if card.split_file and path.is_file():
                return path
    return None


def not_found(card: Card, roots: tuple[Path, ...]) -> MissingPrerequisite:
    """The error for a set of which nothing is there."""
    where = ", ".join(str(root) for root in roots)
    homes = [f"{Path(home.folder, home.images)} ({home.layout})" for home in card.homes]
    shards = [f"{name}/test/nshards.txt ({WEBDATASET})" for name in card.shards]
    return MissingPrerequisite(
        f"{card.title} is not on this machine. Looked below {where} for: {', '.join([*homes, *shards])}.",
        hint=f"Set {DATA_VARIABLE} to the folder that holds it, or see: apd-bench datasets prepare {card.name}",
    )
