"""Whether weights are here is known without loading them, and timing needs none."""

import socket

import pytest

from apd_bench.backbones.catalog import resolve
from apd_bench.backbones.present import missing_weights, stand_in
from apd_bench.core.registry import BACKBONES

ROBUST = "hf-hub:chs20/TeCoA4-ViT-B-32-laion2B-s34B-b79K"


@pytest.fixture(autouse=True)
def empty_machine(tmp_path, monkeypatch):
    """No cached weights, no home, no network."""

    def refuse(*_, **__):
        raise AssertionError("a socket was opened")

    monkeypatch.setattr(socket, "socket", refuse)
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path / "hub"))
    return tmp_path


def in_hub(root, repository, *names):
    """The layout of the hub's cache: a snapshot that the branch `main` points at."""
    folder = root / "hub" / f"models--{repository.replace('/', '--')}"
    (folder / "refs").mkdir(parents=True)
    (folder / "refs/main").write_text("abc")
    (folder / "snapshots/abc").mkdir(parents=True)
    for name in names:
        (folder / "snapshots/abc" / name).write_bytes(b"x")


@pytest.mark.parametrize("name", ["tiny-clean", "ViT-B-32/random"])
def test_what_needs_no_download_is_never_missing(name):
    assert missing_weights(BACKBONES.get(name)) is None


def test_missing_weights_come_with_their_command_until_they_are_in_the_hubs_cache(empty_machine):
    assert "hf download timm/vit_base_patch32_clip_224.openai" in str(
        missing_weights(BACKBONES.get("ViT-B-32-quickgelu/openai"))
    )
    assert f"hf download {ROBUST.removeprefix('hf-hub:')}" in str(missing_weights(BACKBONES.get(ROBUST)))
    in_hub(empty_machine, "timm/vit_base_patch32_clip_224.openai", "open_clip_model.safetensors")
    assert missing_weights(BACKBONES.get("ViT-B-32-quickgelu/openai")) is None
    in_hub(empty_machine, ROBUST.removeprefix("hf-hub:"), "open_clip_pytorch_model.bin")
    assert missing_weights(BACKBONES.get(ROBUST)) is not None  # its configuration is not
    (next(empty_machine.glob("hub/models--chs20*/snapshots/abc")) / "open_clip_config.json").write_text("{}")
    assert missing_weights(BACKBONES.get(ROBUST)) is None


def test_an_image_tower_needs_the_weights_below_it(tmp_path):
    (tmp_path / "tower.pt").write_bytes(b"x")
    alone, over = (
        resolve(f"local-robust:{tmp_path}/tower.pt@ViT-B-32-quickgelu{base}") for base in ("/random", "/openai")
    )
    assert alone is not None and missing_weights(alone) is None
    assert over is not None and "vit_base_patch32_clip_224.openai" in str(missing_weights(over))


def test_timing_takes_random_weights_of_the_same_shape():
    assert stand_in(BACKBONES.get("ViT-B-16-quickgelu/openai")) == "ViT-B-16-quickgelu/random"
    assert stand_in(BACKBONES.get(ROBUST)) == "ViT-B-32/random"
    assert stand_in(BACKBONES.get("tiny-clean")) == "tiny-clean"
    assert stand_in(BACKBONES.get("hf-hub:someone/something")) == "hf-hub:someone/something"
