import os
import pickle

import pytest
import torch

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.registry import DATASETS
from apd_bench.data.cards import cards
from apd_bench.data.splits import load_dataset
from tests.data import replicas

FOLDERS = {
    "cifar10": ("cifar-10-batches-py", "cifar-10-batches-bin"),
    "cifar100": ("cifar-100-python", "cifar-100-binary"),
}


class Evil:
    def __reduce__(self):
        return (os.mkdir, ("owned",))


@pytest.fixture
def cifar10(root, expect):
    expect("cifar10", {"train": [("", 0)] * 160, "val": [("", 0)] * 40, "test": [("", 0)] * 40})
    return replicas.write_cifar(root, cards()["cifar10"], FOLDERS["cifar10"][0])


@pytest.mark.parametrize("name", FOLDERS)
def test_python_and_binary_versions_agree(name, root, expect):
    card, (python, binary) = cards()[name], FOLDERS[name]
    images = replicas.write_cifar(root / "a", card, python)
    replicas.write_cifar_binary(root / "b", card, root / "a" / python, binary)
    train, test = len(images), len(images) if name == "cifar100" else len(images) // 5
    one_each = {"train": train * 4 // 5, "val": train // 5, "test": test}
    expect(name, {split: [("", 0)] * count for split, count in one_each.items()})
    first = load_dataset(DATASETS.get(name), image_size=32, root=root / "a")
    second = load_dataset(DATASETS.get(name), image_size=32, root=root / "b")
    assert first.classes == second.classes == card.classes
    assert first.origin["derived"] == ["train", "val"]
    for one, other in zip(first.splits(), second.splits(), strict=True):
        assert one.labels.equal(other.labels)
        assert one.images(range(9)).equal(other.images(range(9)))


def test_pixels_are_those_of_the_batch(root, cifar10):
    loaded = load_dataset(DATASETS.get("cifar10"), image_size=32)
    for split in (loaded.split("train"), loaded.split("val")):
        batch, row = split.ids[3].split("/")[-2:]
        place = (int(batch[-1]) - 1) * 40 + int(row)
        assert split.images([3])[0].equal(torch.from_numpy(cifar10[place]))


@pytest.mark.parametrize(("stem", "damage", "error", "message"), [
    ("data_batch_2", lambda path: path.write_bytes(pickle.dumps({b"data": Evil()}, 2)), CorruptFile, "mkdir"),
    ("data_batch_5", lambda path: path.unlink(), MissingPrerequisite, "is missing"),
    ("test_batch", lambda path: path.write_bytes(path.read_bytes()[:-500]), CorruptFile, "is not a CIFAR batch"),
], ids=["runs code", "absent", "torn"])  # fmt: skip
def test_a_batch_that_cannot_be_read_is_named(root, cifar10, monkeypatch, stem, damage, error, message):
    monkeypatch.chdir(root)
    damage(root / "cifar-10-batches-py" / stem)
    with pytest.raises(error, match=f"{stem}.*{message}"):
        load_dataset(DATASETS.get("cifar10"), image_size=32)
    assert not (root / "owned").exists()


def test_stl_images_stand_upright_and_with_too_few_bytes_it_is_corrupt(root, expect):
    images = replicas.write_stl(root, cards()["stl10"])
    expect("stl10", {"train": [("", 0)] * 40, "val": [("", 0)] * 10, "test": [("", 0)] * 20})
    loaded = load_dataset(DATASETS.get("stl-10"), image_size=96)
    assert loaded.test.images().equal(torch.from_numpy(images["test"]))
    assert loaded.test.labels.tolist() == list(range(10)) * 2
    assert loaded.classes[2] == "car"
    path = root / "stl10_binary/test_X.bin"
    path.write_bytes(path.read_bytes()[:-1])
    with pytest.raises(CorruptFile, match=r"test_X\.bin"):
        load_dataset(DATASETS.get("stl10"), image_size=96)
