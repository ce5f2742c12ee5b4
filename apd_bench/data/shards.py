"""Webdataset shards in the layout of clip-benchmark/wds_*: tar files of `s0000000.webp` and `s0000000.cls`. Torch-free.

    wds_x/classnames.txt
    wds_x/{train,test}/nshards.txt, 0.tar, 1.tar, ...

Only tar headers and label files are read here; images are later read in place, by offset.
"""

import re
import tarfile
from pathlib import Path

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.files import read_lines, read_text
from apd_bench.core.text import spoken
from apd_bench.data.cards import Card
from apd_bench.data.listing import IMAGE_SUFFIXES, Item, Source
from apd_bench.data.places import WEBDATASET, Place


def read_shards(card: Card, place: Place) -> Source:
    """The samples of every split that is there, keyed by split, shard and name; labels as the shards give them."""
    names = place.folder / "classnames.txt"
    classes = card.shard_classes or card.classes
    if names.is_file():
        classes = tuple(spoken(line) for line in read_lines(names))
    problems: list[str] = []
    splits = {}
    for name in ("train", "val", "test"):
        if place.folder.joinpath(name, "nshards.txt").is_file():
            splits[name] = [item for path in shard_paths(place.folder / name) for item in _items(path, name, problems)]
    if "train" in splits and "val" not in splits and "val" in card.counts:
        splits["trainval"] = splits.pop("train")
    return Source(classes, splits, place.folder, f"shards of {place.folder.name}", layout=WEBDATASET, problems=problems)


def shard_paths(folder: Path) -> list[Path]:
    """The tar files that `nshards.txt` announces; raises MissingPrerequisite naming those that are not there."""
    paths = [folder / f"{number}.tar" for number in range(shard_count(folder / "nshards.txt"))]
    missing = [path.name for path in paths if not path.is_file()]
    if missing:
        raise MissingPrerequisite(
            f"{len(missing)} of the {len(paths)} shards in {folder} are missing: {', '.join(missing[:5])}.",
            hint="Download them into that folder.",
        )
    return paths


def shard_count(path: Path) -> int:
    """The number in `nshards.txt`; raises CorruptFile where it holds none."""
    text = read_text(path).strip()
    if not (text.isascii() and text.isdigit() and len(text) < 7):
        raise CorruptFile(f"{path} should hold a number, it holds '{text[:40]}'.")
    return int(text)


def _items(path: Path, split: str, problems: list[str]) -> list[Item]:
    images: dict[str, tuple[int, int]] = {}
    labels: dict[str, int] = {}
    try:
        with tarfile.open(path, "r:") as archive:
            for member in archive:
                stem, _, suffix = member.name.rpartition(".")
                if not member.isfile() or not stem or (suffix != "cls" and f".{suffix.lower()}" not in IMAGE_SUFFIXES):
                    continue
                if stem in (labels if suffix == "cls" else images):
                    raise CorruptFile(f"The shard {path} has {member.name} twice.", hint="Write it again.")
                if suffix == "cls":
                    content = archive.extractfile(member)
                    label = content.read(32).strip() if content is not None else b""
                    if not re.fullmatch(rb"-?\d{1,9}", label):
                        raise ValueError(f"the label of {stem} is {label.decode('latin1')!r}, not a number")
                    labels[stem] = int(label)
                else:
                    images[stem] = (member.offset_data, member.size)
    except (tarfile.TarError, OSError, ValueError, EOFError) as error:
        raise CorruptFile(f"The shard {path} cannot be read: {error}.", hint="Download it again.") from error
    problems += [f"{path.name}/{stem} has no .cls file" for stem in images if stem not in labels]
    problems += [f"{path.name}/{stem} has a label but no image" for stem in labels if stem not in images]
    return [
        Item(f"{split}/{path.stem}/{stem}", labels[stem], str(path), offset, size)
        for stem, (offset, size) in images.items()
        if stem in labels
    ]
