"""CIFAR and STL-10: images stored as raw bytes. Torch-free; the CIFAR pickles are read without running any code."""

import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.files import read_text
from apd_bench.core.text import spoken
from apd_bench.data.cards import Card
from apd_bench.data.listing import Item, Source
from apd_bench.data.places import Place

Images = NDArray[np.uint8]
_HARMLESS = {
    ("numpy.core.multiarray", "_reconstruct"),
    ("numpy._core.multiarray", "_reconstruct"),
    ("numpy", "ndarray"),
    ("numpy", "dtype"),
    ("_codecs", "encode"),
}
CIFAR_SIDE, STL_SIDE = 32, 96


def cifar(card: Card, place: Place) -> Source:
    """CIFAR-10 or -100, python version (batches of pickled arrays) or binary version (label bytes before pixels)."""
    fine = len(card.classes) == 100
    binary = place.layout == "binary"
    stems = {"train": "trainval", "test": "test"}
    if not fine:
        stems = {**{f"data_batch_{number}": "trainval" for number in range(1, 6)}, "test_batch": "test"}
    arrays: dict[str, Images] = {}
    splits: dict[str, list[Item]] = {"trainval": [], "test": []}
    for stem, split in stems.items():
        path = place.images / (f"{stem}.bin" if binary else stem)
        images, labels = _binary_batch(path, 2 if fine else 1) if binary else _python_batch(path, fine)
        arrays[str(path)] = images
        splits[split] += [Item(f"{stem}/{row:05d}", label, str(path), row) for row, label in enumerate(labels)]
    return Source(_cifar_names(card, place), splits, place.images, place.images.name, arrays=arrays)


def stl10(card: Card, place: Place) -> Source:
    """STL-10: {train,test}_{X,y}.bin; images are stored column by column, labels count from 1."""
    arrays: dict[str, Images] = {}
    splits: dict[str, list[Item]] = {}
    for split, stem in (("trainval", "train"), ("test", "test")):
        path = place.images / f"{stem}_X.bin"
        raw = np.frombuffer(_bytes(path), np.uint8)
        labels = np.frombuffer(_bytes(place.images / f"{stem}_y.bin"), np.uint8)
        if len(raw) != len(labels) * 3 * STL_SIDE * STL_SIDE:
            raise CorruptFile(f"{path} holds {len(raw)} bytes, which is not {len(labels)} images of {STL_SIDE} px.")
        arrays[str(path)] = raw.reshape(-1, 3, STL_SIDE, STL_SIDE).transpose(0, 1, 3, 2)
        splits[split] = [Item(f"{stem}/{row:05d}", int(y) - 1, str(path), row) for row, y in enumerate(labels)]
    names = place.images / "class_names.txt"
    classes = tuple(read_text(names).split()) if names.is_file() else card.classes
    return Source(classes, splits, place.images, place.images.name, arrays=arrays)


def _cifar_names(card: Card, place: Place) -> tuple[str, ...]:
    fine = len(card.classes) == 100
    if place.layout == "binary":
        path = place.images / ("fine_label_names.txt" if fine else "batches.meta.txt")
        names = read_text(path).split() if path.is_file() else list(card.classes)
    else:
        path = place.images / ("meta" if fine else "batches.meta")
        table = _unpickle(path) if path.is_file() else {}
        key = b"fine_label_names" if fine else b"label_names"
        names = [name.decode() if isinstance(name, bytes) else name for name in table.get(key, card.classes)]
    return tuple(spoken(name) for name in names)


def _python_batch(path: Path, fine: bool) -> tuple[Images, list[int]]:
    table = _unpickle(path)
    try:
        images = np.asarray(table[b"data"], np.uint8).reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE)
        labels = [int(label) for label in table[b"fine_labels" if fine else b"labels"]]
    except (KeyError, ValueError, TypeError) as error:
        raise CorruptFile(f"{path} is not a CIFAR batch: {error!r}.") from error
    if len(images) != len(labels):
        raise CorruptFile(f"{path} holds {len(images)} images and {len(labels)} labels.")
    return images, labels


def _binary_batch(path: Path, label_bytes: int) -> tuple[Images, list[int]]:
    raw = np.frombuffer(_bytes(path), np.uint8)
    row = label_bytes + 3 * CIFAR_SIDE * CIFAR_SIDE
    if not len(raw) or len(raw) % row:
        raise CorruptFile(f"{path} is not a whole number of {row}-byte rows.")
    table = raw.reshape(-1, row)
    return table[:, label_bytes:].reshape(-1, 3, CIFAR_SIDE, CIFAR_SIDE), table[:, label_bytes - 1].tolist()


def _bytes(path: Path) -> bytes:
    try:
        return path.read_bytes()
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"{path} is missing.", hint="Unpack the publisher's archive once more.") from error


class _ArraysOnly(pickle.Unpickler):
    """Rebuilds numpy arrays and plain containers; anything else in the pickle is refused."""

    def find_class(self, module: str, name: str) -> Any:
        """The few harmless constructors that a pickled array needs."""
        if (module, name) not in _HARMLESS:
            raise pickle.UnpicklingError(f"it asks for {module}.{name}, which a batch of images does not need")
        return super().find_class(module, name)


def _unpickle(path: Path) -> dict[bytes, Any]:
    try:
        table = _ArraysOnly(io.BytesIO(_bytes(path)), encoding="bytes").load()
        return {key if isinstance(key, bytes) else str(key).encode(): value for key, value in table.items()}
    except (pickle.UnpicklingError, EOFError, AttributeError, ValueError, TypeError, IndexError, KeyError) as error:
        raise CorruptFile(
            f"{path} is not a CIFAR batch: {error}.", hint="Delete the folder and unpack the publisher's archive again."
        ) from error
