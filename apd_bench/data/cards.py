"""Dataset cards: what a set is, where its files lie in each known layout, and how to get them. Torch-free.

One TOML file a set under `cards/`. Class names are those of CoOp (Zhou et al., IJCV 2022), with blanks for
underscores; templates are CoOp's `CUSTOM_TEMPLATES`.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path

from apd_bench.core.errors import CorruptFile
from apd_bench.core.package_data import package_path
from apd_bench.core.specs import DatasetSpec
from apd_bench.core.toml import tomllib


@dataclass(frozen=True, kw_only=True)
class Home:
    """A place where a set may lie below a data root: the layout's name, the set's folder, its image folder.

    `probe` is the folder whose presence shows the layout, where the image folder is not telling.
    """

    layout: str
    folder: str
    images: str
    probe: str = ""


@dataclass(frozen=True, kw_only=True)
class Download:
    """A file of a stable source. `checksum` is "sha256:..." or "md5:...", or empty where none is published.

    `to` is the folder below the data root; `strip` a leading folder inside the archive that is dropped, `into` a folder
    that is put in its place, `inner` an archive inside the archive; `provides` what exists in `to` afterwards.
    """

    url: str
    to: str
    provides: str
    checksum: str = ""
    size: int = 0
    unpack: bool = False
    strip: str = ""
    into: str = ""
    inner: str = ""


@dataclass(frozen=True, kw_only=True)
class Card:
    """All that is known about a set before a file of it is opened.

    `folders` maps class folders on disk to class names, `wnids` names the WordNet folders in label order, `reader` the
    function that reads the publisher's own `lists`; `split_file` is CoOp's split where it has one. `shard_classes` are
    the class names in the label order of the webdataset copy ("" for a class that is left out), where it differs.
    """

    name: str
    title: str
    template: str
    reader: str
    classes: tuple[str, ...]
    counts: Mapping[str, int]
    homes: tuple[Home, ...]
    aliases: tuple[str, ...] = ()
    description: str = ""
    publisher_counts: Mapping[str, int] = field(default_factory=dict)
    folders: Mapping[str, str] = field(default_factory=dict)
    wnids: tuple[str, ...] = ()
    lists: tuple[str, ...] = ()
    split_file: str = ""
    split_url: str = ""
    shards: tuple[str, ...] = ()
    shard_classes: tuple[str, ...] = ()
    downloads: tuple[Download, ...] = ()
    manual: str = ""
    licence: str = ""
    source: str = ""
    citation: str = ""
    notes: str = ""

    @property
    def derives_everything(self) -> bool:
        """True where CoOp re-split all images (50/20/30), false where it kept the publisher's test images."""
        return bool(self.split_file) and self.publisher_counts.get("test") != self.counts["test"]


@cache
def cards() -> Mapping[str, Card]:
    """Every card by name, in the order of the CoOp family's tables, then the shifted sets, then the small ones."""
    return {name: parse_card(package_path("data", "cards", f"{name}.toml")) for name in _ORDER}


def card_of(spec: DatasetSpec) -> Card:
    """The card of a benchmark set, whatever its options."""
    return cards()[spec.options.get("card", spec.name)]


_ORDER = (
    "imagenet", "caltech101", "oxford_pets", "stanford_cars", "oxford_flowers", "food101", "fgvc_aircraft", "sun397",
    "dtd", "eurosat", "ucf101", "imagenetv2", "imagenet_sketch", "imagenet_a", "imagenet_r", "cifar10", "cifar100",
    "stl10",
)  # fmt: skip


def parse_card(path: Path) -> Card:
    """The card in the TOML file `path`; raises CorruptFile naming the file when it is not one."""
    try:
        table = tomllib.loads(path.read_text("utf-8"))
        homes = tuple(Home(**home) for home in table.pop("homes"))
        downloads = tuple(Download(**download) for download in table.pop("downloads", ()))
        if table.pop("classes_file", ""):
            lines = path.with_name("imagenet_classes.tsv").read_text("utf-8").splitlines()
            names = dict(line.split("\t") for line in lines)  # WordNet id: curated name, in label order
            table["wnids"] = tuple(table.get("wnids", names))
            table["classes"] = tuple(names[wnid] for wnid in table["wnids"])
        elif "folders" in table:
            table["classes"] = tuple(table["folders"].values())
        for key in ("classes", "aliases", "shards", "shard_classes", "wnids", "lists"):
            table[key] = tuple(table.get(key, ()))
        return Card(homes=homes, downloads=downloads, **table)
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptFile(f"The dataset card {path} cannot be read: {error!r}.") from error
