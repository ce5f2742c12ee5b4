import dataclasses

import pytest
import torch

from apd_bench.backbones.catalog import builtin
from apd_bench.backbones.configs import model_config, offers_of, require
from apd_bench.backbones.load import instantiate
from apd_bench.backbones.towers import ImageTransformer, TextTransformer
from apd_bench.core.errors import IncompatibleChoice
from apd_bench.core.registry import BACKBONES


def test_a_refusal_names_what_is_needed_and_what_is_offered():
    spec = BACKBONES.get("RN50-quickgelu/openai")
    require(spec, ["text_tokens"], by="advtp")
    with pytest.raises(IncompatibleChoice) as caught:
        require(spec, {"visual_tokens", "text_tokens"}, by="apd")
    assert "'apd' needs text_tokens, visual_tokens" in str(caught.value)
    assert "'RN50-quickgelu/openai' offers deep_text, frame, text_tokens and lacks visual_tokens" in str(caught.value)
    spec = dataclasses.replace(next(iter(builtin())), offers=())
    with pytest.raises(IncompatibleChoice, match="offers no prompts"):
        require(spec, ["text_tokens"], by="coop")


@pytest.mark.parametrize(
    "architecture",
    ["ViT-B-32", "RN50", "convnext_tiny", "MobileCLIP2-S0", "PE-Core-T-16-384", "coca_ViT-B-32", "ViT-B-16-SigLIP"],
)
def test_what_a_configuration_promises_is_what_the_model_offers(architecture):
    """The planner reads the configuration, the adapter looks at the modules; no weights are made here."""
    config = model_config(architecture)
    with torch.device("meta"):
        model = instantiate(config)
    promised = offers_of(config)
    byte_pairs = not config["text_cfg"].get("hf_tokenizer_name")
    assert ("visual_tokens" in promised) == ImageTransformer.fits(model.visual)
    assert ("text_tokens" in promised) == (TextTransformer.fits(getattr(model, "text", model)) and byte_pairs)
