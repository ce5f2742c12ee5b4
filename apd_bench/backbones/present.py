"""Whether the weights of a backbone are on this machine, for plans: nothing is loaded and no socket is opened.

Imports torch only to look a tag up in open_clip's own table.
"""

from pathlib import Path

from apd_bench.backbones.catalog import HUB, HUB_CONFIG, RANDOM, ROBUST_HUB
from apd_bench.backbones.configs import EMBEDDED, embedded_path
from apd_bench.core.specs import BackboneSpec

URL_CACHE = "~/.cache/clip"
HUB_WEIGHTS = ("open_clip_model.safetensors", "open_clip_pytorch_model.bin")


def missing_weights(spec: BackboneSpec) -> str | None:
    """What of the backbone's weights would have to be fetched before it can be used, and how; None where nothing."""
    if spec.weights.startswith(EMBEDDED):
        path = embedded_path(spec.weights.removeprefix(EMBEDDED) + ".safetensors")
        return None if path.is_file() else f"{path} is missing"
    if spec.architecture.startswith(HUB):
        repository = spec.architecture.removeprefix(HUB)
        there = _in_hub_cache(repository, (HUB_CONFIG,)) and _in_hub_cache(repository, HUB_WEIGHTS)
        return None if there else _fetch(repository)
    if spec.options.get("path"):
        path = Path(spec.options["path"])
        base = str(spec.options.get("base") or RANDOM)
        return f"{path} is missing" if not path.is_file() else _missing_tag(spec.architecture, base)
    return _missing_tag(spec.architecture, spec.weights)


def stand_in(spec: BackboneSpec) -> str:
    """A backbone of the same shape that needs no download, for timing; the name itself where there is none."""
    if spec.architecture.startswith(HUB):
        architecture = ROBUST_HUB.get(spec.architecture.removeprefix(HUB))
        return f"{architecture}/{RANDOM}" if architecture else spec.name
    return spec.name if spec.architecture.startswith(EMBEDDED) else f"{spec.architecture}/{RANDOM}"


def _missing_tag(architecture: str, tag: str) -> str | None:
    if tag == RANDOM:
        return None
    from open_clip.pretrained import get_pretrained_cfg

    entry = get_pretrained_cfg(architecture, tag)
    if entry.get("hf_hub"):
        repository, _, name = entry["hf_hub"].rpartition("/")
        return None if _in_hub_cache(repository, (name,) if name else HUB_WEIGHTS) else _fetch(repository)
    url = entry.get("url", "")
    there = Path(URL_CACHE).expanduser().joinpath(url.rpartition("/")[2]).is_file()
    return None if there else f"the weights are fetched on first use, or: download {url} to {URL_CACHE}"


def _in_hub_cache(repository: str, names: tuple[str, ...]) -> bool:
    from huggingface_hub import try_to_load_from_cache

    return any(isinstance(try_to_load_from_cache(repository, name), str) for name in names)


def _fetch(repository: str) -> str:
    return f"the weights are fetched on first use, or: hf download {repository}"
