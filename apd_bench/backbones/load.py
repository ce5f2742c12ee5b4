"""From a BackboneSpec to a Backbone: one path for embedded, tagged, hub, local and random weights."""

from copy import deepcopy
from typing import Any

import open_clip
import torch
from open_clip.constants import OPENAI_DATASET_MEAN, OPENAI_DATASET_STD
from torch import nn

from apd_bench.backbones.adapter import Backbone
from apd_bench.backbones.catalog import HUB, HUB_CONFIG, RANDOM
from apd_bench.backbones.configs import (
    EMBEDDED,
    Config,
    activation_of,
    embedded_path,
    model_config,
    read_json,
    reinstall,
)
from apd_bench.backbones.hub import forbid_network, hub_file
from apd_bench.backbones.present import HUB_WEIGHTS
from apd_bench.backbones.weights import Weights, load_image_tower, load_whole, tagged_file, verify
from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, first_line
from apd_bench.core.files import file_digest
from apd_bench.core.registry import BACKBONES
from apd_bench.core.specs import BackboneSpec

BPE_FILE = "bpe_4096.txt.gz"


def load_backbone(spec: BackboneSpec | str, device: str | torch.device = "cpu") -> Backbone:
    """The backbone of a spec, or of a registered name, float32, frozen, on `device`.

    Raises MissingPrerequisite (weights not there), CorruptFile (wrong digest, unreadable) or IncompatibleChoice
    (weights and architecture do not belong together).
    """
    forbid_network()
    spec = BACKBONES.get(spec) if isinstance(spec, str) else spec
    config, weights = _find(spec)
    expected = activation_of(config)
    if spec.activation in ("quick_gelu", "gelu") and spec.activation != expected:
        raise IncompatibleChoice(f"'{spec.name}' asks for {spec.activation}; {spec.architecture} has {expected}.")
    model = instantiate(config)
    digest, under = weights.digest if weights else RANDOM, spec.options.get("base")
    if under and under != RANDOM:
        base = tagged_file(spec.architecture, under)
        load_whole(model, base.path, spec.name)
        digest = f"{digest}+{base.digest}"
    if weights is not None:
        (load_image_tower if under else load_whole)(model, weights.path, spec.name)
    backbone = Backbone(
        model.float(),
        tokenizer_of(spec.architecture, config),
        spec,
        mean=(weights.mean if weights else None) or OPENAI_DATASET_MEAN,
        std=(weights.std if weights else None) or OPENAI_DATASET_STD,
        digest=digest,
    )
    return backbone.to(device)


def instantiate(config: Config, seed: int = 0) -> nn.Module:
    """open_clip's own model class for a configuration, with seeded random weights and no download."""
    settings = deepcopy(config)
    custom = settings.pop("custom_text", False) or "hf_model_name" in settings["text_cfg"]
    if "timm_model_name" in settings["vision_cfg"]:
        settings["vision_cfg"]["timm_model_pretrained"] = False
    if "hf_model_name" in settings["text_cfg"]:
        settings["text_cfg"]["hf_model_pretrained"] = False
    if "multimodal_cfg" in settings:
        kind: Any = open_clip.CoCa
    else:
        kind = open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        try:
            model: nn.Module = kind(**settings)
        except (OSError, ImportError, RuntimeError) as error:
            raise MissingPrerequisite(
                f"The model cannot be built: {first_line(error)}",
                hint="A Hugging Face text tower needs its configuration in the cache and `pip install transformers`.",
            ) from error
    return model


def tokenizer_of(architecture: str, config: Config) -> Any:
    """The tokenizer of an architecture; the embedded models have a vocabulary of their own."""
    settings = config["text_cfg"]
    length, extra = settings.get("context_length", 77), settings.get("tokenizer_kwargs") or {}
    if architecture.startswith(EMBEDDED):
        path = embedded_path(BPE_FILE)
        if not path.is_file():
            raise MissingPrerequisite(f"The vocabulary {path} is missing.", hint=reinstall(path))
        return open_clip.SimpleTokenizer(bpe_path=str(path), context_length=length)
    if not settings.get("hf_tokenizer_name"):
        return open_clip.SimpleTokenizer(context_length=length, **extra)
    try:
        return open_clip.get_tokenizer(architecture)
    except (ImportError, OSError, ValueError) as error:
        raise MissingPrerequisite(
            f"The tokenizer '{settings['hf_tokenizer_name']}' of {architecture} is not there: {error}",
            hint="It needs `pip install transformers` and, once, the network.",
        ) from error


def _find(spec: BackboneSpec) -> tuple[Config, Weights | None]:
    """The model configuration and the weight file (None: random weights)."""
    if spec.architecture.startswith(HUB):
        repository = spec.architecture.removeprefix(HUB)
        content = read_json(hub_file(repository, (HUB_CONFIG,)), repository)
        if "model_cfg" not in content:
            raise CorruptFile(f"{HUB_CONFIG} of {repository} has no model_cfg.")
        path, preprocess = hub_file(repository, HUB_WEIGHTS), content.get("preprocess_cfg", {})
        return content["model_cfg"], Weights(path, file_digest(path), preprocess.get("mean"), preprocess.get("std"))
    config = model_config(spec.architecture)
    if config is None:
        raise IncompatibleChoice(f"open_clip {open_clip.__version__} has no architecture '{spec.architecture}'.")
    if spec.weights.startswith(EMBEDDED):
        return config, _embedded(spec.weights.removeprefix(EMBEDDED))
    if spec.options.get("path"):
        path = embedded_path(spec.options["path"])  # an absolute path stays what it is
        digest = verify(path, spec.digest, mend="The file changed since it was named; start again.")
        return config, Weights(path, digest)
    if spec.weights == RANDOM:
        return config, None
    return config, tagged_file(spec.architecture, spec.weights)


def _embedded(name: str) -> Weights:
    card_path, path = embedded_path(f"{name}.json"), embedded_path(f"{name}.safetensors")
    card = read_json(card_path)
    try:
        preprocess = card["preprocess_cfg"]
        digest, mean, std = str(card["sha256"]), tuple(preprocess["mean"]), tuple(preprocess["std"])
    except (KeyError, TypeError) as error:
        raise CorruptFile(f"{card_path} lacks {error}.", hint=reinstall(card_path)) from error
    return Weights(path, verify(path, digest, mend=reinstall(path)), mean, std)
