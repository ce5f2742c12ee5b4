"""What a name that is no backbone's probably means, and which architecture a weight file is of. Imports no torch."""

from collections.abc import Mapping
from typing import Any

from apd_bench.backbones.configs import architectures, model_config
from apd_bench.core.errors import UnknownName, unknown_name
from apd_bench.core.files import is_path

_OPENAI = {"RN50", "RN101", "RN50x4", "RN50x16", "RN50x64", "ViT-B-32", "ViT-B-16", "ViT-L-14", "ViT-L-14-336"}
_SHOWN = 3


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
