"""Any image folder as a set: `folder:PATH`.

    PATH/{train,val,test}/<class>/*.jpg     split by folder, in any case, also `valid` and the like; without `test`,
                                            the validation images are the test images
    PATH/<class>/*.jpg                      everything is the test split, or, with `split = "derived"`, 50/20/30
    PATH/dataset.toml                       optional: template (or a list of them), split, licence, and
                                            [classes] folder = "name"
    PATH/classnames.txt                     optional: one name a line in the order of the class folders, or lines that
                                            say `folder name`

Class names are the folder names (blanks for underscores) unless a file says otherwise; the classes are those of all
splits. Labels follow the names of the folders, or their numbers where all are numbers, never the directory's order.
"""

from __future__ import annotations

import hashlib
import json
from collections import Counter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, UsageError, unknown_name
from apd_bench.core.files import read_text
from apd_bench.core.specs import DatasetSpec
from apd_bench.core.text import is_utf8
from apd_bench.core.toml import tomllib
from apd_bench.data.class_names import NAMES, in_order, name_classes
from apd_bench.data.digests import content_digests
from apd_bench.data.listing import SPLITS, Source, derive_splits, entries, folder_items, is_image
from apd_bench.data.names import excluding, quoted
from apd_bench.data.templates import ensemble

if TYPE_CHECKING:
    from apd_bench.data.splits import LoadedDataset

SETTINGS = "dataset.toml"
DEFAULT_TEMPLATE = "a photo of a {}."
IDS = "folder"  # what sample ids begin with: content has no name
_SPLITS = {
    **dict.fromkeys(("train", "training"), "train"),
    **dict.fromkeys(("val", "valid", "validation"), "val"),
    **dict.fromkeys(("test", "testing"), "test"),
}
_KEYS: dict[str, Any] = {"template": (str, list), "split": str, "licence": str, "classes": dict}


def load(spec: DatasetSpec, *, image_size: int, resize: str = "crop", root: Path | None = None) -> LoadedDataset:
    """The folder set `spec`.

    Raises CorruptFile naming files that are not images and classes without images, or where the images are not those
    that the spec was made of.
    """
    from apd_bench.data.benchmark import assemble

    source = list_folder(spec)
    if spec.digest is not None and _digest(source) != spec.digest:
        raise CorruptFile(
            f"{spec.name} has changed since its cells were planned.", hint="Run the same command again, from its start."
        )
    return assemble(spec, IDS, source, image_size=image_size, resize=resize)


def list_folder(spec: DatasetSpec) -> Source:
    """The samples of the folder set `spec`; raises CorruptFile for what is wrong, unless `problems` is "exclude"."""
    source = read_folder(Path(spec.options["path"]), spec.options.get("split", "official"))
    trouble = [*source.gaps, *source.problems]
    if trouble and spec.options.get("problems") != "exclude":
        keeps = "; a class without images stays a name that can be predicted" if source.gaps else ""
        raise CorruptFile(
            f"{spec.name} has {len(trouble)} sample problem{'s' * (len(trouble) > 1)}: {'; '.join(trouble[:5])}.",
            hint=f"Mend these, or leave out what is no image (recorded{keeps}): {excluding(spec.name)}",
        )
    source.note_problems()
    return source


def read_folder(path: Path, split: str = "official") -> Source:
    """The samples of an image folder, split as its folders or its settings say; "derived" splits a test-only folder."""
    settings, parts = _settings(path), _split_folders(path)
    names = _class_names(path, settings, parts)
    labels = {folder: label for label, folder in enumerate(names)}
    source = Source(tuple(names.values()), {}, path, "folders", layout="folder", folder=path, listed=True)
    derived = "derived" in (split, settings.get("split"))
    if parts and derived:
        raise IncompatibleChoice(f"{path} is split by its folders {', '.join(parts.values())}; nothing is derived.")
    for name, folder in parts.items():
        source.splits[name] = folder_items(source, labels, below=folder)
    if parts and (beside := [e.name for e in entries(path) if e.is_dir() and e.name not in parts.values()]):
        source.notes["not_read"] = beside
    if not parts:
        source.splits["all" if derived else "test"] = folder_items(source, labels)
        source.problems += [f"{path / e.name} lies beside the class folders" for e in entries(path) if is_image(e)]
    elif _SPLITS[parts["test"].casefold()] != "test":
        source.notes["test_images"] = f"those of {parts['test']}, for there is no folder test"
    if shared := [name for name, count in Counter(source.classes).items() if count > 1]:
        source.notes["shared_names"] = shared
    derive_splits(source)
    if source.derived and not source.splits["test"]:
        raise CorruptFile(
            f"{path} has too few images in each class for derived splits: none is left to test on.",
            hint='Put at least 4 into each class folder, or leave split = "derived" out.',
        )
    return source


def describe_folder(path: Path) -> tuple[str, tuple[str, ...], str]:
    """Template, class names and licence of an image folder, without listing its images."""
    settings = _settings(path)
    classes = tuple(_class_names(path, settings, _split_folders(path)).values())
    return settings.get("template", DEFAULT_TEMPLATE), classes, settings.get("licence", "")


def folder_digest(spec: DatasetSpec) -> str:
    """Class names, and split, name, label and content of every image, hashed; an unchanged image is not read again."""
    return _digest(read_folder(Path(spec.options["path"]), spec.options.get("split", "official")))


def _digest(source: Source) -> str:
    total = hashlib.sha256(json.dumps(source.classes).encode())
    for name, items in sorted(source.splits.items()):
        contents = content_digests(source.base, [item.key for item in items], part=name)
        for item, content in zip(items, contents, strict=True):
            total.update(json.dumps([name, item.key, item.label, content]).encode())
    return total.hexdigest()


def _settings(path: Path) -> dict[str, Any]:
    """The table of `dataset.toml`, checked, with a list of templates as one ensemble."""
    for entry in entries(path):
        if entry.name not in (SETTINGS, NAMES) and entry.name.casefold() in (SETTINGS, NAMES):
            raise CorruptFile(f"{path / entry.name} is not read.", hint=f"Call it {entry.name.casefold()}.")
    file = path / SETTINGS
    if not file.is_file():
        return {}
    try:
        settings: dict[str, Any] = tomllib.loads(read_text(file))
    except (tomllib.TOMLDecodeError, RecursionError) as error:
        raise CorruptFile(f"{file} is not TOML: {error}.") from error
    for key, value in settings.items():
        if key not in _KEYS:
            raise unknown_name(f"key in {file}", key, _KEYS)
        if not isinstance(value, _KEYS[key]):
            raise CorruptFile(f"{key} = {value!r} in {file} is not of the right kind.", hint=_HINTS[key])
    for folder, name in settings.get("classes", {}).items():
        if not isinstance(name, str) or not name.strip():
            raise CorruptFile(f"The class {folder} = {name!r} in {file} is not a name.", hint=_HINTS["classes"])
    if settings.get("split", "folders") not in ("folders", "derived"):
        raise CorruptFile(f"split = {settings['split']!r} in {file} is unknown.", hint=_HINTS["split"])
    if "template" in settings:
        try:
            settings["template"] = ensemble(settings["template"])
        except UsageError as error:
            raise CorruptFile(f"{file}: {error.message}", hint=error.hint) from error
    return settings


_HINTS = {
    "template": 'Write template = "a photo of a {}.", or a list of such texts for an ensemble.',
    "split": 'Write split = "derived", or leave it out.',
    "licence": 'Write licence = "CC0".',
    "classes": 'Write one line a folder below [classes]: big_dog = "mastiff".',
}


def _split_folders(path: Path) -> dict[str, str]:
    """Split -> folder, in the order train, val, test; nothing for a folder of classes."""
    inside = [entry for entry in entries(path) if entry.is_dir()]
    named = [(_SPLITS[entry.name.casefold()], entry.name) for entry in inside if entry.name.casefold() in _SPLITS]
    found = [(split, name) for split, name in named if any(entry.is_dir() for entry in entries(path / name))]
    if not found:
        return {}
    parts = dict(found)
    for split, name in named:
        if (split, name) not in found:
            raise CorruptFile(
                f"{path / name} holds no class folders.", hint=f"Lay its images out as {name}/<class>/*.jpg."
            )
        if parts[split] != name:
            raise CorruptFile(f"{path} has both {name} and {parts[split]}.", hint="Keep one of the two.")
    if "test" not in parts and "val" not in parts:
        raise CorruptFile(
            f"{path} has training images alone; nothing can be tested on them.",
            hint=f"Put test images into {path / 'test'}/<class>/, or split the training images: "
            + quoted(f"folder:{path / parts['train']}", split="derived"),
        )
    if "test" not in parts:
        parts["test"] = parts.pop("val")
    return {name: parts[name] for name in SPLITS if name in parts}


def _class_names(path: Path, settings: dict[str, Any], parts: dict[str, str]) -> dict[str, str]:
    """Class folder -> class name, in label order; the classes of all splits."""
    folders: set[str] = set()
    for root in [path / part for part in parts.values()] or [path]:
        for entry in entries(root):
            if entry.is_symlink() and not root.joinpath(entry.name).exists() and not is_image(entry):
                raise CorruptFile(f"{root / entry.name} is a link to nothing.", hint="Remove or mend it.")
            if entry.is_dir():
                if not is_utf8(entry.name):
                    raise CorruptFile(
                        f"The class folder {root / entry.name} is named in an encoding that is not UTF-8.",
                        hint="Rename it; convmv renames many.",
                    )
                folders.add(entry.name)
    if len(folders) < 2:
        raise CorruptFile(
            f"{path} has {len(folders)} class folders; a set needs at least 2.",
            hint="Lay the images out as PATH/test/<class>/*.jpg or PATH/<class>/*.jpg.",
        )
    return name_classes(path, in_order(list(folders)), settings.get("classes", {}))
