import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch

from apd_bench.core.errors import CorruptFile, MissingPrerequisite, UsageError
from apd_bench.data.splits import load_dataset


def test_a_card_becomes_a_spec_whose_pixels_are_unit_range_floats(spec):
    assert (spec.name, spec.group, spec.num_classes, spec.image_size) == ("animals", "embedded", 3, 40)
    assert spec.counts == {"train": 18, "val": 9, "test": 12}
    assert spec.aliases == ("embedded:animals",)
    assert spec.digest is not None and len(spec.digest) == 64
    test = load_dataset(spec, image_size=40).test
    images, pixels = test.images([3, 1]), test.pixels([3, 1])
    assert images.shape == (2, 3, 40, 40) and images.dtype == torch.uint8
    assert pixels.dtype == torch.float32 and pixels.max() <= 1
    assert torch.equal(pixels, images.float() / 255)


def test_splits_hold_the_images_of_their_code(spec):
    loaded = load_dataset(spec, image_size=40)
    arrays = np.load(spec.options["path"])
    for code, split in enumerate(loaded.splits()):
        rows = np.flatnonzero(arrays["split"] == code)
        assert split.labels.tolist() == arrays["label"][rows].tolist()
        assert split.images()[:, 0, 0, 0].tolist() == rows.tolist()
    assert loaded.test.ids[:2] == ("animals/test/000000", "animals/test/000001")
    assert loaded.classes == ("ant", "bee", "cat")


def test_another_size_resizes_in_one_of_the_known_ways(spec):
    loaded = load_dataset(spec, image_size=56)
    assert loaded.test.images([0]).shape == (1, 3, 56, 56)
    assert loaded.test.image_size == 56
    with pytest.raises(UsageError, match="crop, squash"):
        load_dataset(spec, image_size=40, resize="stretch")


def flip_a_byte(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 1
    path.write_bytes(data)


def change_arrays(change):
    def damage(path):
        arrays = dict(np.load(path))
        np.savez(path, **{**arrays, **change(arrays)})

    return damage


def change_card(change):
    def damage(path):
        file = path.with_suffix(".json")
        card = json.loads(file.read_text())
        change(card)
        file.write_text(json.dumps(card))

    return damage


DAMAGES = {
    "flipped byte": (flip_a_byte, CorruptFile, r"animals\.npz are damaged.*pip install"),
    "absent": (Path.unlink, MissingPrerequisite, r"animals\.npz"),
    "a name too few": (change_card(lambda card: card["classes"].pop()), CorruptFile, "label 2, .* only 2 class names"),
    "no template": (change_card(lambda card: card.pop("template")), CorruptFile, "lacks template"),
}
OTHER_FILES = {
    "no zip": (lambda path: path.write_bytes(b"not a zip"), "cannot be read"),
    "empty": (lambda path: path.write_bytes(b""), "cannot be read"),
    "lengths": (change_arrays(lambda arrays: {"label": arrays["label"][:-1]}), "do not fit together"),
    "pickled": (change_arrays(lambda arrays: {"source": np.array([{"a": 1}], dtype=object)}), "allow_pickle"),
}


@pytest.mark.parametrize(("damage", "error", "message"), DAMAGES.values(), ids=DAMAGES)
def test_what_is_damaged_is_named_with_the_cure(spec, damage, error, message):
    damage(Path(spec.options["path"]))
    with pytest.raises(error, match=message):
        load_dataset(spec, image_size=40)


@pytest.mark.parametrize(("damage", "message"), OTHER_FILES.values(), ids=OTHER_FILES)
def test_a_file_whose_digest_is_not_known_is_checked_for_its_form(spec, damage, message):
    damage(Path(spec.options["path"]))
    with pytest.raises(CorruptFile, match=message):
        load_dataset(dataclasses.replace(spec, digest=None), image_size=40)
