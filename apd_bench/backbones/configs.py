"""Model configurations from JSON, the embedded one and those of open_clip: what they offer, and which one is meant.

Imports no torch.
"""

import json
from collections.abc import Iterable, Mapping
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile, IncompatibleChoice, MissingPrerequisite, UnknownName, unknown_name
from apd_bench.core.files import is_path
from apd_bench.core.package_data import package_path
from apd_bench.core.specs import BackboneSpec

EMBEDDED = "embedded:"
Config = dict[str, Any]
_OPENAI = {"RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"}
_SHOWN = 3
VISUAL_TOKENS, TEXT_TOKENS, DEEP_TEXT, FRAME = "visual_tokens", "text_tokens", "deep_text", "frame"
ALL_OFFERS = (TEXT_TOKENS, DEEP_TEXT, VISUAL_TOKENS, FRAME)


def read_json(path: Path, repository: str = "") -> Config:
    """The object in a JSON file of a hub repository, or of the package or open_clip.

    Raises MissingPrerequisite when it is not there, CorruptFile when it does not parse.
    """
    mend = f"Fetch it again: hf download {repository}" if repository else reinstall(path)
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError as error:
        raise MissingPrerequisite(f"{path} is missing.", hint=mend) from error
    except (json.JSONDecodeError, UnicodeDecodeError) as error:
        raise CorruptFile(f"{path} is not valid JSON: {error}.", hint=mend) from error
    if not isinstance(content, dict):
        raise CorruptFile(f"{path} does not hold a JSON object.", hint=mend)
    return content


def embedded_path(name: str) -> Path:
    """A file of the embedded models."""
    return package_path("embedded", "models", name)


@cache
def config_folder() -> Path:
    """The folder of open_clip's own model configurations, found without importing open_clip (and torch)."""
    spec = find_spec("open_clip")
    if spec is None or spec.origin is None:
        raise MissingPrerequisite("open_clip is not installed.", hint="Run: pip install open_clip_torch")
    return Path(spec.origin).parent / "model_configs"


@cache
def architectures() -> tuple[str, ...]:
    """Every architecture that open_clip knows by name."""
    return tuple(sorted(path.stem for path in config_folder().glob("*.json")))


def model_config(architecture: str) -> Config | None:
    """The configuration of an architecture name (`embedded:NAME` or one of open_clip's); None if there is none."""
    if architecture.startswith(EMBEDDED):
        path = embedded_path(architecture.removeprefix(EMBEDDED) + ".json")
    elif architecture in architectures():
        path = config_folder() / f"{architecture}.json"
    else:
        return None
    content = read_json(path)
    config: Config = content.get("model_cfg", content)
    return config


def activation_of(config: Config) -> str:
    """The activation that a configuration builds: "quick_gelu" or "gelu"."""
    return "quick_gelu" if config.get("quick_gelu", False) else "gelu"


def image_size_of(config: Config) -> int:
    """The side of the square images that a configuration reads (the shorter one where they are not square)."""
    size = config["vision_cfg"].get("image_size", 224)
    return int(min(size)) if isinstance(size, (list, tuple)) else int(size)


def require(spec: BackboneSpec, needs: Iterable[str], *, by: str) -> None:
    """Raises IncompatibleChoice, with both lists, when `by` needs something that the backbone does not offer."""
    needed = sorted(needs)
    missing = [need for need in needed if need not in spec.offers]
    if missing:
        raise IncompatibleChoice(
            f"'{by}' needs {', '.join(needed)}; the backbone '{spec.name}' offers "
            f"{', '.join(sorted(spec.offers)) or 'no prompts'} and lacks {', '.join(missing)}.",
            hint="Choose a backbone with a plain vision transformer, such as tiny-clean or ViT-B-32-quickgelu/openai.",
        )


def offers_of(config: dict[str, Any]) -> tuple[str, ...]:
    """What an open_clip model configuration offers, read from the configuration alone.

    Visual tokens need open_clip's own vision transformer with class-token or mean pooling; text tokens need its own
    text transformer and byte-pair tokenizer, because the rows of the context must be known.
    """
    vision, text = config["vision_cfg"], config["text_cfg"]
    offers = [FRAME]
    plain_pool = not vision.get("attentional_pool") and vision.get("pool_type", "tok") in ("tok", "avg")
    if not vision.get("timm_model_name") and isinstance(vision.get("layers", 12), int) and plain_pool:
        offers.append(VISUAL_TOKENS)
    if not (text.get("hf_model_name") or text.get("hf_tokenizer_name") or text.get("embed_cls")):
        offers += [TEXT_TOKENS, DEEP_TEXT]
    return tuple(name for name in ALL_OFFERS if name in offers)


def reinstall(path: Path) -> str:
    """How to get a file of the package or of open_clip back."""
    package = "apd-bench" if package_path() in path.parents else "open_clip_torch"
    restore = f" (in a source tree: git checkout -- {path})" if package == "apd-bench" else ""
    return f"Install it again: pip install --force-reinstall {package}{restore}"


def explain_name(name: str) -> UnknownName | None:
    """The error for a name that is a file, or an architecture without weights; None where it is neither.

    OpenAI's spelling (`ViT-B/32`, `ViT-L/14@336px`) is understood.
    """
    if is_path(name):
        return UnknownName(
            f"'{name}' is a file and no backbone's name.",
            hint=f"Say which architecture it is of, such as local:{name}@ViT-B-16-quickgelu.",
        )
    found = _architecture(name)
    if found is None:
        return None
    meant = f" Did you mean '{found}-quickgelu/openai'?" if found in _OPENAI else ""
    return UnknownName(
        f"'{name}' is an architecture without weights.{meant}",
        hint=f"Write {found}/TAG with a tag of open_clip, {found}/random, or local:FILE@{found}.",
    )


def _architecture(name: str) -> str | None:
    plain = name.strip("/").replace("/", "-").replace("@336px", "-336").lower()
    return next((item for item in architectures() if item.lower() == plain), None)


def unknown_architecture(architecture: str, rest: str) -> UnknownName:
    """The error for an architecture that open_clip lacks; `rest` is what stood behind its slash."""
    near = _architecture(f"{architecture}/{rest}")
    asked, known = (f"{architecture}/{rest}", [near]) if near else (architecture, architectures())
    return unknown_name("architecture", asked, known, command="apd-bench list backbones")


def architectures_of(state: Mapping[str, Any]) -> list[str]:
    """The architectures whose widths, patches and embedding are those of a CLIP state dict; empty where none can be."""
    shapes = {name: tuple(value.shape) for name, value in state.items()}
    patches, projection = shapes.get("visual.conv1.weight"), shapes.get("text_projection")
    if patches is None or projection is None or len(patches) != 4 or len(projection) != 2:
        return []
    layers = len({name.split(".")[3] for name in shapes if name.startswith("visual.transformer.resblocks.")})
    found = []
    for name in architectures():
        config = model_config(name) or {}
        vision, text = config.get("vision_cfg", {}), config.get("text_cfg", {})
        shape = (vision.get("width", 768), vision.get("patch_size"), vision.get("layers"))
        if shape == (patches[0], patches[2], layers) and (text.get("width"), config.get("embed_dim")) == projection:
            found.append(name)
    return found[:_SHOWN]
