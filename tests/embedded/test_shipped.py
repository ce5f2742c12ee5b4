"""What is shipped: image sets with their licences, weights of open_clip's own classes, the shortened tokenizer."""

import hashlib
import io
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from open_clip import CLIP, SimpleTokenizer
from PIL import Image
from safetensors.torch import load_file

EMBEDDED = Path(__file__).resolve().parents[2] / "apd_bench" / "embedded"
DATASETS, MODELS = EMBEDDED / "datasets", EMBEDDED / "models"
BACKBONES = ("tiny-clean", "tiny-robust")
NAMES = sorted(path.stem for path in DATASETS.glob("*.npz"))
LICENCES = {"MIT", "Apache-2.0", "ISC", "CC0-1.0", "CC-BY-4.0", "CC-BY-3.0", "Unlicense", "BSD-3-Clause"}


def card_of(name):
    return json.loads((DATASETS / f"{name}.json").read_text(encoding="utf-8"))


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


@pytest.fixture(scope="module")
def config():
    return json.loads((MODELS / "tiny.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def tokenizer(config):
    return SimpleTokenizer(
        bpe_path=str(MODELS / "bpe_4096.txt.gz"), context_length=config["text_cfg"]["context_length"]
    )


def test_the_backbones_are_small_and_differ():
    assert sum(path.stat().st_size for path in MODELS.iterdir()) < 9_000_000
    first, second = (load_file(str(MODELS / f"{name}.safetensors")) for name in BACKBONES)
    assert first.keys() == second.keys()
    assert not all(torch.equal(first[key], second[key]) for key in first)


@pytest.mark.parametrize("name", BACKBONES)
def test_card_describes_the_file(name):
    card = json.loads((MODELS / f"{name}.json").read_text(encoding="utf-8"))
    assert card["sha256"] == hashlib.sha256((MODELS / f"{name}.safetensors").read_bytes()).hexdigest()
    assert {"recipe", "samples_seen", "seed", "sources", "preprocess_cfg", "licence", "parameters"} <= card.keys()
    assert len(card["preprocess_cfg"]["mean"]) == len(card["preprocess_cfg"]["std"]) == 3


@pytest.mark.parametrize("name", BACKBONES)
def test_half_precision_weights_load_into_open_clip(name, config, tokenizer):
    state = load_file(str(MODELS / f"{name}.safetensors"))
    assert {tensor.dtype for tensor in state.values()} == {torch.float16}
    assert all(bool(tensor.isfinite().all()) for tensor in state.values())
    model = CLIP(**config)
    model.load_state_dict(state)
    model.eval()
    with torch.no_grad():
        images = model.encode_image(torch.zeros(2, 3, 40, 40), normalize=True)
        texts = model.encode_text(tokenizer(["a cat", "a dog"]), normalize=True)
    assert images.shape == texts.shape == (2, 128)
    assert model.logit_scale.exp().item() <= 100.5


@pytest.mark.parametrize("text", ["", "a cat", "Ünïcödé 漢字 ☃ \U0001f600", "x" * 500, "<end_of_text>", "a\nb\tc"])
def test_tokenizer_encodes_any_text(tokenizer, text):
    tokens = tokenizer([text])
    assert tokens.shape == (1, 32)
    assert int(tokens.max()) == 4095
    assert int(tokens[0, 0]) == 4094


def test_tokenizer_has_4096_symbols_and_the_end_is_the_highest(tokenizer):
    assert tokenizer.vocab_size == 4096
    assert tokenizer.encoder["<end_of_text>"] == 4095
    assert tokenizer.decode(tokenizer.encode("a picture of a cat")).strip() == "a picture of a cat"


def test_short_text_pass_equals_open_clip(config, tokenizer):
    tiny = pytest.importorskip("baselines.embedded.model", reason="the build scripts are not in the wheel")
    model = tiny.load_half(MODELS / "tiny-clean.safetensors")
    tokens = tokenizer(["a cat", "a picture of an ice cream."])
    with torch.no_grad():
        torch.testing.assert_close(
            tiny.text_features(model, tokens), model.encode_text(tokens, normalize=True), atol=1e-5, rtol=1e-4
        )
