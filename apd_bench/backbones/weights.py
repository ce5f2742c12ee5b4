"""Finding, checking and reading weight files; offline, no socket is opened."""

from __future__ import annotations

import os
import warnings
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import open_clip
import torch
from torch import Tensor, nn

from apd_bench.backbones.configs import sha256
from apd_bench.backbones.present import HUB_WEIGHTS, URL_CACHE
from apd_bench.backbones.vision import has_quick_gelu
from apd_bench.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite

VISION_KEY = "vision_encoder_state_dict"


@dataclass(frozen=True)
class Weights:
    """A weight file with its digest and the image statistics it was trained with (None: open_clip's default)."""

    path: Path
    digest: str
    mean: tuple[float, ...] | None = None
    std: tuple[float, ...] | None = None


def offline() -> bool:
    """Whether the environment forbids the network (HF_HUB_OFFLINE or APD_BENCH_OFFLINE)."""
    return any(
        os.environ.get(name, "").strip().lower() in ("1", "true", "yes", "on")
        for name in ("HF_HUB_OFFLINE", "APD_BENCH_OFFLINE")
    )


def forbid_network() -> None:
    """Tells the hub client, which reads its environment once at import, that the network is switched off."""
    if offline():
        from huggingface_hub import constants

        os.environ["HF_HUB_OFFLINE"] = "1"
        constants.HF_HUB_OFFLINE = True


def hub_file(repository: str, names: tuple[str, ...]) -> Path:
    """The first of `names` in a hub repository, from the cache or (unless offline) downloaded.

    Raises MissingPrerequisite with the way to get it.
    """
    from huggingface_hub import hf_hub_download
    from huggingface_hub.errors import EntryNotFoundError, HfHubHTTPError, LocalEntryNotFoundError

    for name in names:
        try:
            return Path(hf_hub_download(repository, name, local_files_only=offline()))
        except (LocalEntryNotFoundError, EntryNotFoundError):
            continue
        except (HfHubHTTPError, OSError, ValueError) as error:
            raise MissingPrerequisite(
                f"{repository} cannot be reached: {type(error).__name__}: {str(error).splitlines()[0]}",
                hint=f"Check the name and the network, or download it elsewhere: hf download {repository}",
            ) from error
    state = "is not in the local cache and the network is switched off" if offline() else "could not be downloaded"
    raise MissingPrerequisite(
        f"{' or '.join(names)} of {repository} {state}.",
        hint=f"On a machine with network run: hf download {repository}  (HF_HOME names the cache folder).",
    )


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
    return Weights(path, sha256(path), mean, std)


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
    found = sha256(path)
    if expected is not None and found != expected:
        raise CorruptFile(
            f"The weights {path} are damaged: SHA-256 {found[:12]}..., expected {expected[:12]}...", hint=mend
        )
    return found


def read_checkpoint(path: Path) -> tuple[Mapping[str, Any], bool]:
    """The content of a checkpoint without unpickling code, and whether it is an OpenAI TorchScript archive."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(path), False
        if _is_torchscript(path):
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")
                state = torch.jit.load(str(path), map_location="cpu").state_dict()  # type: ignore[no-untyped-call]
            return {key: value for key, value in state.items() if _is_weight(key, value)}, True
        content = torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # every reader raises its own types for a torn or foreign file
        raise CorruptFile(
            f"{path} cannot be read as weights: {type(error).__name__}: {str(error).splitlines()[0]}",
            hint="Fetch the file again; it must be safetensors or a state dict that loads without pickled code.",
        ) from error
    if not isinstance(content, Mapping):
        raise CorruptFile(f"{path} does not hold a table of tensors.", hint="Save model.state_dict().")
    return content, False


def _is_weight(key: str, value: Tensor) -> bool:
    """False for what an archive keeps beside its weights: sizes as scalars, the causal mask."""
    return key != "attn_mask" and (value.ndim > 0 or key == "logit_scale")


def _is_torchscript(path: Path) -> bool:
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any(name.endswith("/constants.pkl") for name in archive.namelist())


def load_whole(model: nn.Module, path: Path, name: str) -> None:
    """Loads a whole checkpoint into `model`, strictly, through open_clip (which converts foreign layouts)."""
    content, torchscript = read_checkpoint(path)
    if VISION_KEY in content:
        raise IncompatibleChoice(
            f"{path} holds an image tower only ({VISION_KEY}).",
            hint="Say which weights it lies over: local:FILE@ARCHITECTURE/TAG, such as ViT-B-32-quickgelu/openai.",
        )
    if torchscript and not has_quick_gelu(model):
        raise IncompatibleChoice(
            f"{path} is an OpenAI archive, trained with quick_gelu; the architecture of '{name}' has gelu.",
            hint="Use the architecture that ends in -quickgelu.",
        )
    try:
        if torchscript:
            model.load_state_dict(_for_class(model, dict(content)), strict=True)
        else:
            open_clip.load_checkpoint(model, str(path), strict=True)
    except (RuntimeError, KeyError, AttributeError) as error:
        raise _misfit(path, name, error) from error


def load_image_tower(model: nn.Module, path: Path, name: str) -> None:
    """Loads a TeCoA-style image tower (key `vision_encoder_state_dict`, or bare) over the one of `model`, strictly."""
    content, _ = read_checkpoint(path)
    state: Mapping[str, Tensor] = content.get(VISION_KEY, content)
    plain = {_without_prefix(key): value for key, value in state.items()}
    visual: Any = model.visual
    try:
        visual.load_state_dict(plain, strict=True)
    except RuntimeError as error:
        raise _misfit(path, name, error) from error


def _without_prefix(key: str) -> str:
    for prefix in ("module.", "model.", "visual."):
        key = key.removeprefix(prefix)
    return key


def _for_class(model: nn.Module, state: dict[str, Tensor]) -> dict[str, Tensor]:
    custom = not hasattr(model, "positional_embedding")
    return open_clip.model.convert_to_custom_text_state_dict(state) if custom else state


def _misfit(path: Path, name: str, error: Exception) -> IncompatibleChoice:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return IncompatibleChoice(
        f"{path} does not fit the architecture of '{name}': {' '.join(lines[1:3] or lines)[:300]}",
        hint="Name the architecture that the weights were trained with after the @.",
    )
