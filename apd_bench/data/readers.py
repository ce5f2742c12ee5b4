"""Readers of CoOp's split files and of the publishers' own lists, one function a set. Torch-free.

Each takes the card and the place where the set was found and returns a `Source`. The rules for class names and labels
are those of CoOp's `datasets/*.py`. Missing or unreadable lists raise MissingPrerequisite or CorruptFile naming them.
"""

import re
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from apd_bench.core.bounds import parse_json
from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.files import read_lines, read_text
from apd_bench.core.text import spoken
from apd_bench.data.cards import Card
from apd_bench.data.listing import SPLITS, Item, Source, folder_items
from apd_bench.data.places import Place


def read_split_file(card: Card, place: Place, path: Path) -> Source:
    """CoOp's json: {"train"|"val"|"test": [[path, label, class name], ...]}; label and name must agree throughout."""
    try:
        table = parse_json(read_text(path))
        splits = {name: [Item(str(key).lstrip("/"), int(label)) for key, label, _ in table[name]] for name in SPLITS}
        names: dict[int, set[str]] = {}
        for entries in (table[name] for name in splits):
            for _, label, written in entries:
                names.setdefault(int(label), set()).add(str(written))
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise CorruptFile(
            f"The split file {path} is not one of CoOp's: {type(error).__name__}: {error}.",
            hint=f"Delete it and get the original from {card.split_url} (Drive serves an HTML page when it refuses).",
        ) from error
    doubled = next((label for label, found in sorted(names.items()) if len(found) > 1), None)
    if doubled is not None:
        written = " and ".join(f"'{name}'" for name in sorted(names[doubled]))
        raise CorruptFile(f"The split file {path} calls label {doubled} both {written}.")
    if sorted(names) != list(range(len(card.classes))):
        raise CorruptFile(
            f"The split file {path} has labels {min(names, default=0)} to {max(names, default=0)} ({len(names)} of "
            f"them), but {card.title} has {len(card.classes)} classes.",
            hint=f"Get the original from {card.split_url}.",
        )
    classes = tuple(spoken(names[label].pop()) for label in range(len(names)))
    return Source(classes, splits, place.images, path.name)


def oxford_pets(card: Card, place: Place) -> Source:
    """annotations/{trainval,test}.txt: `Abyssinian_100 1 1 1`; the class is the file name without its number."""

    def entry(line: str) -> Item | None:
        stem, label, *_ = line.split()
        return None if stem.startswith("#") else Item(f"{stem}.jpg", int(label) - 1)

    splits = _items(card, place, entry, trainval="annotations/trainval.txt", test="annotations/test.txt")
    names = {item.label: item.key.rpartition("_")[0].lower() for item in splits["trainval"]}
    return _source(card, place, names, splits, "annotations/trainval.txt and test.txt")


def stanford_cars(card: Card, place: Place) -> Source:
    """devkit/cars_meta.mat, cars_train_annos.mat and cars_test_annos_withlabels.mat; the year moves to the front."""
    meta = [str(name).rpartition(" ") for name in _matlab(card, place, "devkit/cars_meta.mat", "class_names").ravel()]
    names = {label: f"{year} {model}" for label, (model, _, year) in enumerate(meta)}

    def entries(folder: str, *paths: str) -> list[Item]:
        annotations = _matlab(card, place, _first(place, *paths), "annotations")
        files, labels = annotations["fname"].ravel().tolist(), annotations["class"].ravel().tolist()
        return [Item(f"{folder}/{file}", int(label) - 1) for file, label in zip(files, labels, strict=True)]

    splits = {
        "trainval": entries("cars_train", "devkit/cars_train_annos.mat"),
        "test": entries("cars_test", "cars_test_annos_withlabels.mat", "devkit/cars_test_annos_withlabels.mat"),
    }
    return _source(card, place, names, splits, "cars_train_annos.mat and cars_test_annos_withlabels.mat")


def oxford_flowers(card: Card, place: Place) -> Source:
    """imagelabels.mat and setid.mat (trnid, valid, tstid, all 1-based); names from cat_to_name.json or the card."""
    labels = _matlab(card, place, "imagelabels.mat", "labels").ravel().tolist()
    splits = {}
    for split, key in (("train", "trnid"), ("val", "valid"), ("test", "tstid")):
        numbers = _matlab(card, place, "setid.mat", key).ravel().tolist()
        splits[split] = [Item(f"image_{int(n):05d}.jpg", int(labels[int(n) - 1]) - 1) for n in numbers]
    written = place.folder / "cat_to_name.json"
    names = dict(enumerate(card.classes))
    if written.is_file():
        try:
            names = {int(key) - 1: value for key, value in dict(parse_json(read_text(written))).items()}
        except (ValueError, TypeError) as error:
            raise CorruptFile(f"{written} is not a JSON table: {error}.") from error
    return _source(card, place, names, splits, "setid.mat")


def food101(card: Card, place: Place) -> Source:
    """meta/classes.txt, meta/train.txt and meta/test.txt: `apple_pie/1005649`."""
    names = dict(enumerate(_lines(card, place, "meta/classes.txt")))
    labels = {name: label for label, name in names.items()}

    def entry(line: str) -> Item:
        return Item(f"{line}.jpg", labels[line.split("/")[0]])

    splits = _items(card, place, entry, trainval="meta/train.txt", test="meta/test.txt")
    return _source(card, place, names, splits, "meta/train.txt and test.txt")


def fgvc_aircraft(card: Card, place: Place) -> Source:
    """variants.txt and images_variant_{train,val,test}.txt: `1025794 707-320`."""
    names = dict(enumerate(_lines(card, place, "variants.txt")))
    labels = {name: label for label, name in names.items()}

    def entry(line: str) -> Item:
        number, _, variant = line.partition(" ")
        return Item(f"{number}.jpg", labels[variant.strip()])

    splits = _items(card, place, entry, **{name: f"images_variant_{name}.txt" for name in SPLITS})
    return _source(card, place, names, splits, "images_variant_{train,val,test}.txt")


def sun397(card: Card, place: Place) -> Source:
    """ClassName.txt, Training_01.txt and Testing_01.txt: `/a/apse/indoor/sun_x.jpg` is of class "indoor apse"."""
    folders = [line.lstrip("/") for line in _lines(card, place, _first(place, "ClassName.txt", "SUN397/ClassName.txt"))]
    labels = {folder: label for label, folder in enumerate(folders)}
    names = {label: " ".join(reversed(folder.split("/")[1:])) for folder, label in labels.items()}

    def entry(line: str) -> Item:
        key = line.lstrip("/")
        return Item(key, labels[key.rpartition("/")[0]])

    splits = _items(card, place, entry, trainval="Training_01.txt", test="Testing_01.txt")
    return _source(card, place, names, splits, "Training_01.txt and Testing_01.txt")


def dtd(card: Card, place: Place) -> Source:
    """labels/{train,val,test}1.txt, the first of the publisher's ten splits: `banded/banded_0002.jpg`."""
    labels = {name: label for label, name in enumerate(card.classes)}

    def entry(line: str) -> Item:
        return Item(line, labels[line.split("/")[0]])

    splits = _items(card, place, entry, **{name: f"labels/{name}1.txt" for name in SPLITS})
    return Source(card.classes, splits, place.images, "labels/{train,val,test}1.txt")


def ucf101(card: Card, place: Place) -> Source:
    """ucfTrainTestlist/{classInd,trainlist01,testlist01}.txt; middle frames lie in Apply_Eye_Makeup/v_..._c01.jpg."""
    pairs = [line.split() for line in _lines(card, place, "ucfTrainTestlist/classInd.txt")]
    labels = {action: int(number) - 1 for number, action in pairs}
    spelled = {action: "_".join(re.findall("[A-Z][^A-Z]*", action)) for action in labels}

    def entry(line: str) -> Item:
        action, file = line.split()[0].split("/")
        return Item(f"{spelled[action]}/{file.replace('.avi', '.jpg')}", labels[action])

    lists = {"trainval": "trainlist01", "test": "testlist01"}
    splits = _items(card, place, entry, **{name: f"ucfTrainTestlist/{file}.txt" for name, file in lists.items()})
    names = {label: spelled[action] for action, label in labels.items()}
    return _source(card, place, names, splits, "ucfTrainTestlist/trainlist01.txt and testlist01.txt")


def class_folders(card: Card, place: Place) -> Source:
    """One folder a class and no published split (Caltech101, EuroSAT): everything in "all", sorted."""
    return _folders("all", card.classes, place, card.folders)


def imagenet(card: Card, place: Place) -> Source:
    """{train,val}/<wnid>/*.JPEG, sorted; val is the test split. Names from classnames.txt where it lies beside."""
    labels = {wnid: label for label, wnid in enumerate(card.wnids)}
    source = Source(wordnet_names(card, place), {}, place.images, "the folders train and val", listed=True)
    for name, folder in (("train", "train"), ("test", "val")):
        if place.images.joinpath(folder).is_dir():
            source.splits[name] = folder_items(source, labels, below=folder)
    if "test" not in source.splits:
        raise MissingPrerequisite(
            f"{place.images / 'val'} is missing: it holds the test images of {card.title}.", hint=card.manual
        )
    if "train" not in source.splits:
        source.notes["no_train"] = f"{place.folder.name}/{place.images.joinpath('train').relative_to(place.folder)}"
    return source


def wordnet_folders(card: Card, place: Place) -> Source:
    """<wnid>/*, test only (ImageNet-Sketch, -A, -R); labels follow the sorted folders, as in CoOp."""
    return _folders("test", wordnet_names(card, place), place, card.wnids)


def numbered_folders(card: Card, place: Place) -> Source:
    """0/ to 999/, test only (ImageNetV2)."""
    return _folders("test", wordnet_names(card, place), place, [str(label) for label in range(len(card.wnids))])


def _folders(split: str, classes: tuple[str, ...], place: Place, folders: Iterable[str]) -> Source:
    source = Source(classes, {}, place.images, f"the folders of {place.images.name}", listed=True)
    source.splits[split] = folder_items(source, {folder: label for label, folder in enumerate(folders)})
    return source


def wordnet_names(card: Card, place: Place) -> tuple[str, ...]:
    """Class names by WordNet id: CoOp's `classnames.txt` where it lies in the set's folder, else the card's."""
    path = place.folder / "classnames.txt"
    if not path.is_file():
        return card.classes
    pairs = {wnid: name for wnid, _, name in (line.partition(" ") for line in read_lines(path))}
    if missing := [wnid for wnid in card.wnids if not pairs.get(wnid)]:
        raise CorruptFile(
            f"{path} has no name for {len(missing)} classes, the first is {missing[0]}.",
            hint="Delete it to use the built-in names.",
        )
    return tuple(spoken(pairs[wnid]) for wnid in card.wnids)


def _lines(card: Card, place: Place, name: str) -> list[str]:
    path = place.folder / name
    with _reading(card, path):
        return read_lines(path)


def _items(card: Card, place: Place, entry: Callable[[str], Item | None], **lists: str) -> dict[str, list[Item]]:
    """The samples of each split: what `entry` makes of the lines of its list (None: no sample)."""
    splits = {}
    for split, name in lists.items():
        items = []
        for line in _lines(card, place, name):
            try:
                items.append(entry(line))
            except (LookupError, ValueError) as error:
                raise CorruptFile(f"{place.folder / name} has a line that names no sample: '{line}'.") from error
        splits[split] = [item for item in items if item is not None]
    return splits


def _matlab(card: Card, place: Place, name: str, variable: str) -> Any:
    from scipy.io import loadmat

    path = place.folder / name
    try:
        with _reading(card, path):
            return loadmat(path, squeeze_me=True)[variable]
    except (ValueError, TypeError, KeyError, OSError) as error:
        raise CorruptFile(f"{path} is not the MATLAB file of {card.title}: {error}.") from error


def _first(place: Place, *names: str) -> str:
    return next((name for name in names if place.folder.joinpath(name).is_file()), names[0])


@contextmanager
def _reading(card: Card, path: Path) -> Iterator[None]:
    try:
        yield
    except FileNotFoundError as error:
        raise MissingPrerequisite(
            f"{card.title}: the publisher's list {path} is missing.",
            hint=f"See: apd-bench datasets prepare {card.name}",
        ) from error


def _source(card: Card, place: Place, names: Mapping[int, str], splits: dict[str, list[Item]], lists: str) -> Source:
    if sorted(names) != list(range(len(card.classes))):
        raise CorruptFile(f"The lists of {card.title} name {len(names)} classes instead of {len(card.classes)}.")
    classes = tuple(spoken(names[label]) for label in range(len(names)))
    return Source(classes, splits, place.images, lists)
