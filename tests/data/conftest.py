"""Tiny sets written by the tests: an embedded set, and splits made of arrays."""

import hashlib
import json
from dataclasses import replace

import numpy as np
import pytest
import torch

from apd_bench.core.specs import DatasetSpec
from apd_bench.data.cards import cards
from apd_bench.data.catalog import embedded
from apd_bench.data.splits import ImageSplit, LoadedDataset
from tests.data.replicas import encoded

CLASSES = ("ant", "bee", "cat")
PARTS = ("train", "val", "test")


def write_embedded(folder, name="animals", per_class=(6, 3, 4)):
    """An embedded set: image i is a flat picture with red value i."""
    label = np.concatenate([np.repeat(np.arange(3), count) for count in per_class]).astype(np.int16)
    split = np.concatenate([np.full(3 * count, code) for code, count in enumerate(per_class)]).astype(np.uint8)
    shuffled = np.random.default_rng(0).permutation(len(label))
    label, split = label[shuffled], split[shuffled]
    images = [encoded(row, size=(40, 40)) for row in range(len(label))]
    offsets, source = np.cumsum([0, *map(len, images)]).astype(np.int64), np.arange(len(label), dtype=np.int32)
    blob, path = np.frombuffer(b"".join(images), np.uint8), folder / f"{name}.npz"
    np.savez(path, blob=blob, offsets=offsets, label=label, split=split, source=source)
    counts = {part: 3 * count for part, count in zip(PARTS, per_class, strict=True)}
    card = {
        "name": name, "title": name.title(), "classes": list(CLASSES), "template": "a picture of a {}.",
        "counts": counts, "image_size": 40, "npz_sha256": hashlib.sha256(path.read_bytes()).hexdigest(),
        "licence_summary": "CC0", "version": 1,
    }  # fmt: skip
    path.with_suffix(".json").write_text(json.dumps(card))
    return path


@pytest.fixture
def spec(tmp_path):
    write_embedded(tmp_path)
    return next(embedded(tmp_path))


class ArrayPixels:
    """A store whose image i is filled with i."""

    def __init__(self, count, image_size=2):
        self.image_size, self.count = image_size, count

    def read(self, rows):
        filled = np.broadcast_to(rows[:, None, None, None], (len(rows), 3, self.image_size, self.image_size))
        return filled.astype(np.uint8)


@pytest.fixture
def make_split():
    def make(labels, name="train", dataset="toy"):
        ids = tuple(f"{dataset}/{name}/{place:06d}" for place in range(len(labels)))
        return ImageSplit(name, ids, torch.tensor(labels), ArrayPixels(len(labels)), np.arange(len(labels)))

    return make


@pytest.fixture
def make_dataset(make_split):
    def make(count=5, per_class=6, *, train=True):
        labels = [label for label in range(count) for _ in range(per_class)]
        spec = DatasetSpec(name="toy", loader="none:none", template="{}")
        splits = {name: make_split(labels, name) if train or name == "test" else None for name in PARTS}
        names = tuple(f"class {label}" for label in range(count))
        return LoadedDataset(spec=spec, classes=names, template="{}", **splits)

    return make


@pytest.fixture
def root(tmp_path, monkeypatch):
    """A data root that $APD_BENCH_DATA names, with a cache folder of its own."""
    monkeypatch.setenv("APD_BENCH_DATA", str(tmp_path / "data"))
    monkeypatch.setenv("APD_BENCH_CACHE", str(tmp_path / "cache"))
    (tmp_path / "data").mkdir()
    return tmp_path / "data"


@pytest.fixture
def expect(monkeypatch):
    """Changes what a card expects, so that a replica with few images counts as complete."""

    def change(name, listed):
        card = cards()[name]
        counts = {split: len(items) for split, items in listed.items()}
        publisher = dict(card.publisher_counts)
        if "trainval" in publisher:
            publisher = {"trainval": counts["train"] + counts.get("val", 0), "test": counts["test"]}
        elif publisher:
            publisher = counts
        monkeypatch.setitem(cards(), name, replace(card, counts=counts, publisher_counts=publisher))
        return cards()[name]

    return change
