"""The shipped weights: checksums, open_clip's own classes, the shortened tokenizer."""

import hashlib
import json
from pathlib import Path

import pytest
import torch
from open_clip import CLIP, SimpleTokenizer
from safetensors.torch import load_file

MODELS = Path(__file__).resolve().parents[2] / "apd_bench" / "embedded" / "models"
BACKBONES = ("tiny-clean", "tiny-robust")


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
