"""Any image folder as a set: `folder:PATH`.

    PATH/{train,val,test}/<class>/*.jpg     split by folder (val and train may be absent), or
    PATH/<class>/*.jpg                      everything is the test split, or, with `split = "derived"`, 50/20/30
    PATH/dataset.toml                       optional: template, split, licence, and [classes] folder = "name"
    PATH/classnames.txt                     optional: one name a line, in the order of the sorted class folders

Class names are the folder names (blanks for underscores) unless a file says otherwise. The order is sorted by name,
never that of the directory.
"""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apd_bench.data.listing import Source, derive_splits, prompt_name
from apd_bench.data.readers import folder_items
from apd_bench.errors import CorruptFile
from apd_bench.specs import DatasetSpec
from apd_bench.toml import tomllib

if TYPE_CHECKING:
    from apd_bench.data.splits import LoadedDataset

SETTINGS, NAMES = "dataset.toml", "classnames.txt"
DEFAULT_TEMPLATE = "a photo of a {}."
_SPLITS = ("train", "val", "test")


def load(spec: DatasetSpec, *, image_size: int, resize: str = "crop", root: Path | None = None) -> LoadedDataset:
    """The folder set `spec`; raises CorruptFile naming files that are not images and classes without images."""
    from apd_bench.data.benchmark import assemble

    source = read_folder(Path(spec.options["path"]), spec.options.get("split", "official"))
    if source.problems and spec.options.get("problems") != "exclude":
        shown = "; ".join(source.problems[:5])
        raise CorruptFile(
            f"{spec.name} has {len(source.problems)} sample problems: {shown}.",
            hint="Remove what is not an image, and class folders that are not in every split; or leave them out with "
            f"\"folder(path='{spec.options['path']}', problems='exclude')\".",
        )
    if source.problems:
        source.notes["excluded"] = [text.replace(f"{source.base}/", "") for text in source.problems]
    return assemble(spec, spec.title, source, image_size=image_size, resize=resize)


def read_folder(path: Path, split: str = "official") -> Source:
    """The samples of an image folder, split as its folders or its settings say; "derived" splits a test-only folder."""
    settings = _settings(path)
    names = _class_names(path, settings)
    labels = {folder: label for label, folder in enumerate(names)}
    source = Source(tuple(names.values()), {}, path, "folders", layout="folder", folder=path, listed=True)
    parts = [name for name in _SPLITS if path.joinpath(name).is_dir()]
    if "test" in parts:
        for name in parts:
            source.splits[name] = folder_items(path, labels, source.problems, below=name)
    else:
        everything = folder_items(path, labels, source.problems)
        source.splits["all" if "derived" in (split, settings.get("split")) else "test"] = everything
    derive_splits(source)
    return source


def describe_folder(path: Path) -> tuple[str, tuple[str, ...], str]:
    """Template, class names and licence of an image folder, without listing its images."""
    settings = _settings(path)
    classes = tuple(_class_names(path, settings).values())
    return str(settings.get("template", DEFAULT_TEMPLATE)), classes, str(settings.get("licence", ""))


def folder_digest(spec: DatasetSpec) -> str:
    """Class names, and path and size of every image below the folder, hashed; no image is opened."""
    source = read_folder(Path(spec.options["path"]), spec.options.get("split", "official"))
    digest = hashlib.sha256("\0".join(source.classes).encode())
    for name, items in sorted(source.splits.items()):
        for item in items:
            size = source.base.joinpath(item.key).stat().st_size
            digest.update(f"{name}\0{item.key}\0{size}\0".encode())
    return digest.hexdigest()


def _settings(path: Path) -> dict[str, Any]:
    file = path / SETTINGS
    if not file.is_file():
        return {}
    try:
        settings: dict[str, Any] = tomllib.loads(file.read_text("utf-8"))
    except ValueError as error:
        raise CorruptFile(f"{file} is not TOML: {error}.") from error
    if "{}" not in str(settings.get("template", "{}")):
        raise CorruptFile(f"The template in {file} has no '{{}}' for the class name.")
    return settings


def _class_names(path: Path, settings: dict[str, Any]) -> dict[str, str]:
    """Class folder -> class name, in label order."""
    root = path / "test" if path.joinpath("test").is_dir() else path
    folders = sorted(entry.name for entry in root.iterdir() if entry.is_dir() and not entry.name.startswith("."))
    if len(folders) < 2:
        raise CorruptFile(
            f"{root} has {len(folders)} class folders; a set needs at least 2.",
            hint="Lay the images out as PATH/test/<class>/*.jpg or PATH/<class>/*.jpg.",
        )
    table = settings.get("classes", {})
    file = path / NAMES
    if file.is_file():
        names = [line.strip() for line in file.read_text("utf-8").splitlines() if line.strip()]
        if len(names) != len(folders):
            raise CorruptFile(
                f"{file} names {len(names)} classes, but there are {len(folders)} class folders in {root}."
            )
        table = dict(zip(folders, names, strict=True))
    if strange := sorted(set(table) - set(folders)):
        raise CorruptFile(f"'{strange[0]}' is named as a class, but there is no such folder in {root}.")
    return {folder: prompt_name(str(table.get(folder, folder))) for folder in folders}
