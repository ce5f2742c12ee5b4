"""Getting a set ready: the steps of its card, which of them are done, and carrying out the rest. Torch-free."""

import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, UserError
from apd_bench.data.cards import Card, Download
from apd_bench.data.download import OnBytes, fetch
from apd_bench.data.places import WEBDATASET, find_split_file
from apd_bench.data.shards import shard_count
from apd_bench.data.unpack import unpack

HUB = "https://huggingface.co/datasets/clip-benchmark/{}/resolve/main/{}"
DRIVE = "https://drive.google.com/uc?export=download&id={}"
FetchProgress = Callable[[str], OnBytes]


@dataclass(frozen=True, kw_only=True)
class Step:
    """One thing to do: `url` is empty for what has to be done by hand; `done` says that it is there already.

    Without a `download`, what lies at `url` is CoOp's split file.
    """

    text: str
    url: str = ""
    target: Path = Path()
    done: bool = False
    download: Download | None = None


def plan_steps(card: Card, root: Path) -> list[Step]:
    """The steps towards CoOp's layout of the set below `root`, in order."""
    steps = []
    home = card.homes[0]
    images_there = any(root.joinpath(h.folder, h.probe or h.images).is_dir() for h in card.homes)
    if card.manual:
        steps.append(Step(text=card.manual, done=images_there))
    for download in card.downloads:
        target = root / download.to / download.url.rpartition("/")[2].partition("?")[0]
        there = root.joinpath(download.to, download.provides).exists()
        there |= images_there and download.provides == home.images
        size = f" ({download.size / 1e9:.2f} GB)" if download.size > 1e7 else ""
        verb = "unpack" if download.unpack else "put"
        text = f"download {download.url}{size} and {verb} it into {root / download.to}"
        steps.append(Step(text=text, url=download.url, target=target, done=there, download=download))
    if card.split_file:
        target = root / home.folder / card.split_file
        text = f"download {card.split_url} as {target}"
        there = find_split_file(card, (root,)) is not None
        steps.append(Step(text=text, url=drive_address(card.split_url), target=target, done=there))
    return steps


def carry_out(card: Card, step: Step, *, on_fetch: FetchProgress | None = None, keep: bool = False) -> None:
    """Does one step that has a url; archives are deleted after unpacking unless `keep`.

    Raises MissingPrerequisite or CorruptFile as `fetch` and `unpack` do; for a split file that has other counts than
    CoOp's, too.
    """
    progress = on_fetch(step.target.name) if on_fetch is not None else None
    if step.download is None:
        whole = step.target.with_name(step.target.name + ".new")
        fetch(step.url, whole, on_progress=progress)
        _check_split(card, whole)
        whole.replace(step.target)
        return
    what = step.download
    fetch(step.url, step.target, checksum=what.checksum, size=what.size, on_progress=progress)
    if what.unpack:
        unpack(step.target, step.target.parent, strip=what.strip, into=what.into, inner=what.inner)
        if not keep:
            step.target.unlink()


def fetch_shards(card: Card, root: Path, *, on_fetch: FetchProgress | None = None) -> Path:
    """Downloads the webdataset copy of the set below `root` and returns its folder; what is there is not fetched again.

    The hub announces a SHA-256 for every shard, which is checked. Raises IncompatibleChoice for a set without a copy.
    """
    if not card.shards:
        raise IncompatibleChoice(f"There is no webdataset copy of {card.title}.")
    errors: list[UserError] = []
    for name in card.shards:
        try:
            _fetch_copy(name, root / name, "train" in card.counts, on_fetch)
        except MissingPrerequisite as error:
            errors.append(error)
        else:
            return root / name
    raise errors[0]


def drive_address(link: str) -> str:
    """The address that hands out the file of a Google Drive link; other links as they are."""
    parts = link.split("/")
    return DRIVE.format(parts[parts.index("d") + 1]) if "drive.google.com" in link and "d" in parts else link


def _fetch_copy(name: str, folder: Path, has_train: bool, on_fetch: FetchProgress | None) -> None:
    def get(path: str) -> Path:
        target = folder / path
        if not target.is_file():
            fetch(HUB.format(name, path), target, on_progress=on_fetch(f"{name}/{path}") if on_fetch else None)
        return target

    get("classnames.txt")
    for split in ["train", "test"] if has_train else ["test"]:
        for number in range(shard_count(get(f"{split}/nshards.txt"))):
            get(f"{split}/{number}.tar")


def _check_split(card: Card, path: Path) -> None:
    try:
        table = json.loads(path.read_text("utf-8"))
        found = {name: len(table[name]) for name in ("train", "val", "test")}
    except (ValueError, KeyError, TypeError) as error:
        path.unlink()
        raise CorruptFile(
            f"What {card.split_url} gave is not a split file ({error}).",
            hint=f"Open the address in a browser, download the file and put it beside the images as {card.split_file}.",
        ) from error
    if found != dict(card.counts):
        path.unlink()
        raise CorruptFile(f"The split file from {card.split_url} has {found} samples instead of {dict(card.counts)}.")


def webdataset_steps(card: Card, root: Path) -> list[Step]:
    """What `fetch_shards` would do, for people who may not or cannot download."""
    there = [name for name in card.shards if root.joinpath(name, "test", "nshards.txt").is_file()]
    name = (there or list(card.shards) or [""])[0]
    address = HUB.format(name, "").removesuffix("/resolve/main/")
    text = f"download the {WEBDATASET} copy {address} into {root / name}"
    return [Step(text=text, url=address, target=root / name, done=bool(there))] if card.shards else []
