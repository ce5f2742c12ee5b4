"""No drawing, and nothing that looks like one, is on both sides of a split; and the check can fail."""

import json
import shutil

import numpy as np
import pytest

check = pytest.importorskip("baselines.embedded.check", reason="the build scripts are not in the wheel")
shapes = pytest.importorskip("baselines.embedded.shapes", reason="the build scripts are not in the wheel")


@pytest.fixture(scope="module")
def index():
    return check.load_index()


def test_shipped_sets_do_not_leak_and_the_index_covers_every_split(index):
    assert check.crossings(index) == []
    assert check.mismatches(index) == []
    splits, counts = np.unique(index["split"], return_counts=True)
    assert dict(zip(splits.tolist(), counts.tolist(), strict=True)).keys() == {"pretrain", "train", "val", "test"}
    for name in np.unique(index["category"]):
        assert set(index["split"][index["category"] == name]) == {"pretrain", "train", "val", "test"}, name


@pytest.mark.parametrize(
    ("held", "where"), [("test", "pretrain"), ("train", "pretrain"), ("val", "train"), ("train", "test")]
)
@pytest.mark.parametrize("class_name", ["animals/cat", "fashion/bag"])
def test_an_injected_copy_is_found(index, held, where, class_name):
    row = np.flatnonzero((index["category"] == class_name) & (index["split"] == held))[0]
    shape = index["shape"][row].copy()
    shape[:3] = np.roll(shape[:3], 1)  # a near-duplicate, not the same bytes
    added = {"shape": shape, "category": class_name, "split": where, "name": "injected/copy"}
    leaky = {key: np.concatenate([index[key], np.array([added[key]], index[key].dtype)]) for key in index}
    leaky["name"] = np.concatenate([index["name"], np.array(["injected/copy"])])
    vectors = shapes.unit(leaky["shape"][[row, -1]])
    assert float(vectors[0] @ vectors[1]) > 0.93
    assert any("injected/copy" in line for line in check.crossings(leaky))


def test_a_picture_moved_to_another_split_is_found(index, tmp_path):
    for name in ("animals.npz", "animals.json"):
        shutil.copy(check.DATASETS / name, tmp_path / name)
    with np.load(tmp_path / "animals.npz", allow_pickle=False) as arrays:
        content = {key: arrays[key] for key in arrays.files}
    test_row = int(np.flatnonzero(content["split"] == 2)[0])
    content["split"][test_row] = 0
    np.savez(tmp_path / "animals.npz", **content)
    assert len(check.mismatches(index, tmp_path)) == 1


def test_a_source_unknown_to_the_index_is_found(index, tmp_path):
    shutil.copy(check.DATASETS / "food.npz", tmp_path / "food.npz")
    card = json.loads((check.DATASETS / "food.json").read_text(encoding="utf-8"))
    card["sources"][0]["icon"] = "not-in-the-index"
    (tmp_path / "food.json").write_text(json.dumps(card), encoding="utf-8")
    assert check.mismatches(index, tmp_path)


def test_a_constant_plane_is_similar_to_nothing_and_clusters_are_connected_components():
    flat = np.zeros((2, 20, 20), np.uint8)
    flat[1] = 200
    assert list(shapes.similar_pairs(shapes.unit(flat), shapes.unit(flat))) == []
    rng = np.random.default_rng(0)
    base = rng.normal(size=(3, 400)).astype(np.float32)
    rows = np.concatenate([base, base + 0.05 * rng.normal(size=(3, 400)).astype(np.float32)])
    rows -= rows.mean(1, keepdims=True)
    rows /= np.linalg.norm(rows, axis=1, keepdims=True)
    labels = shapes.clusters(rows)
    assert len(set(labels.tolist())) == 3
    assert labels[:3].tolist() == labels[3:].tolist()
