"""Finding, checking and reading weight files; offline, no socket is opened."""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from open_clip.factory import (
    convert_state_dict,
    convert_to_custom_text_state_dict,
    resize_pos_embed,
    resize_text_pos_embed,
)
from torch import Tensor, nn

from apd_bench.backbones.configs import architectures_of
from apd_bench.backbones.hub import hub_file, offline
from apd_bench.backbones.present import HUB_WEIGHTS, URL_CACHE
from apd_bench.backbones.torchfile import is_torchscript, read_safetensors, read_torch, tensors_of
from apd_bench.backbones.towers import has_quick_gelu
from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite
from apd_bench.core.files import file_digest

VISION_KEY = "vision_encoder_state_dict"
_OPENAI_KEYS = {"input_resolution", "context_length", "vocab_size"}  # sizes beside the weights of OpenAI's own class


@dataclass(frozen=True)
class Weights:
    """A weight file with its digest and the image statistics it was trained with (None: open_clip's default)."""

    path: Path
    digest: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def tagged_file(architecture: str, tag: str) -> Weights:
    """The weights that open_clip lists as `tag` of `architecture`; MissingPrerequisite when they cannot be had."""
    entry = open_clip.get_pretrained_cfg(architecture, tag)
    if not entry:
        raise MissingPrerequisite(f"open_clip {open_clip.__version__} has no weights '{tag}' for {architecture}.")
    mean, std = entry.get("mean"), entry.get("std")
    if entry.get("hf_hub"):
        repository, _, name = entry["hf_hub"].rpartition("/")
        path = hub_file(repository, (name,) if name else HUB_WEIGHTS)
    else:
        path = _url_file(entry["url"], f"{architecture}/{tag}")
    return Weights(path, file_digest(path), mean, std)


def _url_file(url: str, name: str) -> Path:
    folder = Path(URL_CACHE).expanduser()
    if offline() and not (folder / Path(url).name).is_file():
        raise MissingPrerequisite(
            f"The weights of {name} are not in {folder} and the network is switched off.",
            hint=f"Download {url} to {folder}.",
        )
    try:
        return Path(open_clip.pretrained.download_pretrained_from_url(url, cache_dir=str(folder)))
    except (OSError, RuntimeError) as error:
        raise MissingPrerequisite(f"The weights of {name} cannot be downloaded: {error}.", hint=f"See {url}") from error


def verify(path: Path, expected: str | None, *, mend: str) -> str:
    """The SHA-256 of a file; MissingPrerequisite when there is no file, CorruptFile when it is not the expected one."""
    if not path.is_file():
        raise MissingPrerequisite(f"The weights {path} are missing.", hint=mend)
    found = file_digest(path)
    if expected is not None and found != expected:
        raise CorruptFile(
            f"The weights {path} are damaged: SHA-256 {found[:12]}..., expected {expected[:12]}...", hint=mend
        )
    return found


def read_checkpoint(path: Path) -> tuple[Mapping[str, Any], bool]:
    """The tensors of a weight file, and whether it is an OpenAI TorchScript archive; nothing in the file is run.

    A file with a state dict among other things gives that; one of TeCoA gives {VISION_KEY: image tower}.
    """
    if path.suffix == ".safetensors":
        return read_safetensors(path), False
    content = read_torch(path)
    if is_torchscript(path):
        # Beside its weights an archive keeps sizes as scalars and the causal mask.
        weights = ((key, value) for key, value in tensors_of(content) if key != "attn_mask")
        return {key: value.read() for key, value in weights if value.shape or key == "logit_scale"}, True
    if not isinstance(content, Mapping):
        raise CorruptFile(f"'{path}' does not hold a table of tensors.", hint="Save model.state_dict().")
    if VISION_KEY in content:
        return {VISION_KEY: _tensors(content[VISION_KEY])}, False
    return _tensors(content.get("state_dict", content)), False


def _tensors(table: Any) -> dict[str, Tensor]:
    return {name: value.read() for name, value in tensors_of(table)}


def load_whole(model: nn.Module, path: Path, name: str) -> None:
    """Loads a whole checkpoint into `model`, strictly, in the layouts that open_clip converts."""
    content, torchscript = read_checkpoint(path)
    if VISION_KEY in content:
        raise IncompatibleChoice(
            f"{path} holds an image tower only ({VISION_KEY}).",
            hint="Say which weights it lies over: local:FILE@ARCHITECTURE/TAG, such as ViT-B-32-quickgelu/openai.",
        )
    if (torchscript or content.keys() >= _OPENAI_KEYS) and not has_quick_gelu(model):
        raise IncompatibleChoice(
            f"{path} holds weights of OpenAI, trained with quick_gelu; the architecture of '{name}' has gelu.",
            hint="Use the architecture that ends in -quickgelu.",
        )
    try:
        model.load_state_dict(_converted(model, dict(content)), strict=True)
    except (RuntimeError, KeyError, AttributeError, IndexError, TypeError, ValueError, AssertionError) as error:
        raise _misfit(path, name, error, content) from error


def _converted(model: Any, state: dict[str, Tensor]) -> dict[str, Tensor]:
    """`state` as `model` names and shapes it: what `open_clip.load_checkpoint` does with a state that it has read."""
    if all(key.startswith("module.") for key in state):
        state = {key.removeprefix("module."): value for key, value in state.items()}
    state = convert_state_dict(model, {key: value for key, value in state.items() if key not in _OPENAI_KEYS})
    if not hasattr(model, "positional_embedding"):
        state = convert_to_custom_text_state_dict(state)
    for key in ("logit_scale", "logit_bias"):
        if key in state and getattr(model, key, None) is not None:
            state[key] = state[key].reshape(getattr(model, key).shape)
    if "logit_bias" not in state and getattr(model, "logit_bias", None) is not None:
        state["logit_bias"] = torch.zeros_like(state["logit_scale"])
    state.pop("text.transformer.embeddings.position_ids", None)
    resize_pos_embed(state, model)
    resize_text_pos_embed(state, model)
    return state


def load_image_tower(model: nn.Module, path: Path, name: str) -> None:
    """Loads a TeCoA-style image tower (key `vision_encoder_state_dict`, or bare) over the one of `model`, strictly."""
    content, _ = read_checkpoint(path)
    state: Mapping[str, Tensor] = content.get(VISION_KEY, content)
    plain = {re.sub(r"^(module\.)?(model\.)?(visual\.)?", "", key): value for key, value in state.items()}
    visual: Any = model.visual
    try:
        visual.load_state_dict(plain, strict=True)
    except RuntimeError as error:
        raise _misfit(path, name, error, {}) from error


def _misfit(path: Path, name: str, error: Exception, state: Mapping[str, Tensor]) -> IncompatibleChoice:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    likely = architectures_of(state)
    looks = f" It looks like {' or '.join(likely)}." if likely else ""
    return IncompatibleChoice(
        f"{path} does not fit the architecture of '{name}': {' '.join(lines[1:3] or lines)[:300]}.{looks}",
        hint=f"Name the one that the weights were trained with: local:{path}@{likely[0] if likely else 'NAME'}.",
    )
