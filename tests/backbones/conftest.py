"""Tiny open_clip models with random weights, one per kind of tower."""

from copy import deepcopy

import pytest
import torch

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.configs import offers_of
from apd_bench.backbones.load import instantiate, tokenizer_of
from apd_bench.core.specs import BackboneSpec

MEAN, STD = (0.48, 0.46, 0.41), (0.27, 0.26, 0.28)
BASE = {
    "embed_dim": 24,
    "vision_cfg": {"image_size": 16, "patch_size": 8, "width": 32, "layers": 3, "head_width": 16},
    "text_cfg": {"context_length": 20, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 3},
}
KINDS = {
    "plain": {},
    "quick_gelu": {"quick_gelu": True},
    "custom_text": {"custom_text": True},
    "mean_pool": {"vision_cfg": {"pool_type": "avg", "final_ln_after_pool": True}},
    "mean_pool_ln_first": {"vision_cfg": {"pool_type": "avg", "no_ln_pre": True}},
    "layer_scale": {"vision_cfg": {"ls_init_value": 0.3}, "text_cfg": {"ls_init_value": 0.3}},
    "custom_block": {"vision_cfg": {"qk_norm": True}, "text_cfg": {"qk_norm": True}},
    "bidirectional": {"custom_text": True, "text_cfg": {"no_causal_mask": True, "pool_type": "last"}},
    "eos_pool": {"text_cfg": {"pool_type": "eos", "eos_id": 49407}},
    "projected": {"custom_text": True, "text_cfg": {"proj_bias": True}},
    "siglip": {"init_logit_bias": -10.0},
    "resnet": {"vision_cfg": {"layers": [1, 1, 1, 1], "width": 8, "image_size": 32, "patch_size": None}},
}


def config_of(kind):
    config = deepcopy(BASE)
    for key, value in KINDS[kind].items():
        if isinstance(value, dict):
            config[key].update(value)
        else:
            config[key] = value
    return config


def build(kind="plain", seed=0):
    config = config_of(kind)
    model = instantiate(config, seed)
    size = config["vision_cfg"]["image_size"]
    spec = BackboneSpec(
        name=kind, architecture=kind, weights="random", activation="gelu", image_size=size, offers=offers_of(config)
    )
    return Backbone(model, tokenizer_of("ViT-B-32", config), spec, mean=MEAN, std=STD)


@pytest.fixture(scope="session")
def backbones():
    return {kind: build(kind) for kind in KINDS}


@pytest.fixture(scope="session")
def plain(backbones):
    return backbones["plain"]


@pytest.fixture
def pixels():
    return torch.rand(3, 3, 16, 16, generator=torch.Generator().manual_seed(1))
