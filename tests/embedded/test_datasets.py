"""The shipped image sets: format, splits, sizes, licences, NOTICE."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

EMBEDDED = Path(__file__).resolve().parents[2] / "apd_bench" / "embedded"
DATASETS = EMBEDDED / "datasets"
NAMES = sorted(path.stem for path in DATASETS.glob("*.npz"))
LICENCES = {"MIT", "Apache-2.0", "ISC", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "Unlicense", "BSD-3-Clause"}


def card_of(name):
    card = json.loads((DATASETS / f"{name}.json").read_text(encoding="utf-8"))
    return card


def arrays_of(name):
    with np.load(DATASETS / f"{name}.npz", allow_pickle=False) as arrays:
        return {key: arrays[key] for key in arrays.files}


def test_there_are_eight_sets_with_unique_english_nouns_in_lower_case():
    assert NAMES == ["animals", "fashion", "food", "nature", "objects", "places", "science", "vehicles"]
    assert sum(path.stat().st_size for path in DATASETS.iterdir()) <= 5_000_000
    seen = set()
    for name in NAMES:
        classes = card_of(name)["classes"]
        assert 10 <= len(classes) == len(set(classes)) <= 14
        assert not seen & set(classes)
        seen |= set(classes)
        assert all(c == c.lower() and c.replace(" ", "").replace("-", "").isalpha() for c in classes)
        assert "{}" in card_of(name)["template"]


@pytest.mark.parametrize("name", NAMES)
def test_file_is_the_one_its_card_describes(name):
    card, arrays = card_of(name), arrays_of(name)
    assert card["name"] == name
    assert card["npz_sha256"] == hashlib.sha256((DATASETS / f"{name}.npz").read_bytes()).hexdigest()
    types = {key: value.dtype.name for key, value in arrays.items()}
    assert types == {"blob": "uint8", "offsets": "int64", "label": "int16", "split": "uint8", "source": "int32"}
    n = len(arrays["label"])
    assert len(arrays["offsets"]) == n + 1
    assert arrays["offsets"][-1] == len(arrays["blob"])
    assert len(arrays["split"]) == len(arrays["source"]) == n
    assert card["counts"] == {k: int(np.sum(arrays["split"] == i)) for i, k in enumerate(("train", "val", "test"))}
    assert set(arrays["source"].tolist()) == set(range(len(card["sources"])))


@pytest.mark.parametrize("name", NAMES)
def test_every_picture_decodes(name):
    card, arrays = card_of(name), arrays_of(name)
    blob, offsets = arrays["blob"].tobytes(), arrays["offsets"]
    for i in range(len(arrays["label"])):
        picture = Image.open(io.BytesIO(blob[offsets[i] : offsets[i + 1]]))
        assert picture.size == (card["image_size"],) * 2
        assert picture.mode == "RGB"


@pytest.mark.parametrize("name", NAMES)
def test_splits_are_large_enough(name):
    card, arrays = card_of(name), arrays_of(name)
    assert card["counts"]["test"] >= 200
    for c in range(len(card["classes"])):
        mine = arrays["split"][arrays["label"] == c]
        train, val, test = (int(np.sum(mine == s)) for s in range(3))
        assert train >= 16, card["classes"][c]
        assert val >= 4, card["classes"][c]
        assert test >= 10, card["classes"][c]


@pytest.mark.parametrize("name", NAMES)
def test_a_source_drawing_has_one_class_and_one_split(name):
    arrays = arrays_of(name)
    for source in np.unique(arrays["source"]):
        mine = arrays["source"] == source
        assert len(np.unique(arrays["label"][mine])) == 1
        assert len(np.unique(arrays["split"][mine])) == 1


def test_no_source_is_copyleft_or_non_commercial_and_the_notice_names_all():
    provenance = json.loads((EMBEDDED / "provenance.json").read_text(encoding="utf-8"))
    entries = {**provenance["shipped"], **provenance["training_only"]}
    assert {entry["licence"] for entry in entries.values()} <= LICENCES
    for name in NAMES:
        for source in card_of(name)["sources"]:
            assert source["licence"] == provenance["shipped"][source["set"]]["licence"]
    provenance = json.loads((EMBEDDED / "provenance.json").read_text(encoding="utf-8"))
    used = {source["set"] for name in NAMES for source in card_of(name)["sources"]}
    assert used == set(provenance["shipped"])
    notice = (EMBEDDED / "NOTICE").read_text(encoding="utf-8")
    for key in ("shipped", "training_only"):
        for name, entry in provenance[key].items():
            assert f"{entry['title']} ({name}), {entry['author']}" in notice
    notice = pytest.importorskip("baselines.embedded.notice", reason="the build scripts are not in the wheel")
    provenance = json.loads((EMBEDDED / "provenance.json").read_text(encoding="utf-8"))
    assert (EMBEDDED / "NOTICE").read_text(encoding="utf-8") == notice.render(provenance)
