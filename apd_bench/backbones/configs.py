"""Model configurations read from JSON, without importing torch: the embedded one and those that open_clip ships."""

import json
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from apd_bench.core.errors import CorruptFile, MissingPrerequisite
from apd_bench.core.package_data import package_path

EMBEDDED = "embedded:"
Config = dict[str, Any]


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


def reinstall(path: Path) -> str:
    """How to get a file of the package or of open_clip back."""
    package = "apd-bench" if package_path() in path.parents else "open_clip_torch"
    restore = f" (in a source tree: git checkout -- {path})" if package == "apd-bench" else ""
    return f"Install it again: pip install --force-reinstall {package}{restore}"
