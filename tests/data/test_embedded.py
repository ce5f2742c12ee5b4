from __future__ import annotations

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from apd_bench.core.errors import CorruptFile, MissingPrerequisite, UsageError
from apd_bench.core.identity import counted
from apd_bench.data.catalog import embedded
from apd_bench.data.load import load_dataset


def test_card_becomes_a_spec(spec):
    assert (spec.name, spec.group, spec.num_classes, spec.image_size) == ("animals", "embedded", 3, 40)
    assert spec.counts == {"train": 18, "val": 9, "test": 12}
    assert spec.aliases == ("embedded:animals",)
    assert spec.digest is not None and len(spec.digest) == 64


def test_where_the_files_lie_is_no_part_of_the_identity(spec):
    moved = dataclasses.replace(spec, options={"path": "/elsewhere/animals.npz"})
    assert counted(moved) == counted(spec)


def test_splits_hold_the_images_of_their_code(spec):
    loaded = load_dataset(spec, image_size=40)
    arrays = np.load(spec.options["path"])
    for code, split in enumerate(loaded.splits()):
        rows = np.flatnonzero(arrays["split"] == code)
        assert split.labels.tolist() == arrays["label"][rows].tolist()
        assert split.images()[:, 0, 0, 0].tolist() == rows.tolist()
    assert loaded.test.ids[:2] == ("animals/test/000000", "animals/test/000001")
    assert loaded.classes == ("ant", "bee", "cat")


def test_pixels_are_unit_range_floats_and_images_bytes(spec):
    test = load_dataset(spec, image_size=40).test
    images, pixels = test.images([3, 1]), test.pixels([3, 1])
    assert images.shape == (2, 3, 40, 40) and images.dtype == torch.uint8
    assert pixels.dtype == torch.float32 and pixels.max() <= 1
    assert torch.equal(pixels, images.float() / 255)


def test_another_size_resizes(spec):
    loaded = load_dataset(spec, image_size=56)
    assert loaded.test.images([0]).shape == (1, 3, 56, 56)
    assert loaded.test.image_size == 56


def test_damaged_images_name_the_file_and_the_cure(spec):
    path = Path(spec.options["path"])
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(bytes(data))
    with pytest.raises(CorruptFile, match=r"animals\.npz are damaged.*pip install"):
        load_dataset(spec, image_size=40)


def test_absent_images_are_a_missing_prerequisite(spec):
    Path(spec.options["path"]).unlink()
    with pytest.raises(MissingPrerequisite, match=r"animals\.npz"):
        load_dataset(spec, image_size=40)


@pytest.mark.parametrize("content", [b"not a zip", b""])
def test_a_file_of_another_format_is_corrupt(spec, content):
    Path(spec.options["path"]).write_bytes(content)
    with pytest.raises(CorruptFile, match="cannot be read"):
        load_dataset(dataclasses.replace(spec, digest=None), image_size=40)


def test_arrays_of_different_lengths_are_corrupt(spec):
    path = Path(spec.options["path"])
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "label": arrays["label"][:-1]})
    with pytest.raises(CorruptFile, match="do not fit together"):
        load_dataset(dataclasses.replace(spec, digest=None), image_size=40)


def test_a_pickled_array_is_refused(spec):
    path = Path(spec.options["path"])
    arrays = dict(np.load(path))
    np.savez(path, **{**arrays, "source": np.array([{"a": 1}], dtype=object)})
    with pytest.raises(CorruptFile, match="allow_pickle"):
        load_dataset(dataclasses.replace(spec, digest=None), image_size=40)


def test_a_label_without_a_name_is_named(spec):
    card_path = Path(spec.options["path"]).with_suffix(".json")
    card = json.loads(card_path.read_text())
    card_path.write_text(json.dumps({**card, "classes": card["classes"][:2]}))
    with pytest.raises(CorruptFile, match=r"label 2, but there are only 2 class names"):
        load_dataset(spec, image_size=40)


def test_a_card_without_a_key_says_which(spec):
    card_path = Path(spec.options["path"]).with_suffix(".json")
    card = json.loads(card_path.read_text())
    del card["template"]
    card_path.write_text(json.dumps(card))
    with pytest.raises(CorruptFile, match="lacks template"):
        list(embedded(card_path.parent))


def test_unknown_resize_lists_the_known_ones(spec):
    with pytest.raises(UsageError, match="crop, squash"):
        load_dataset(spec, image_size=40, resize="stretch")
