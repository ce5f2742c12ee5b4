"""What a number was measured with: versions, source commit, plug-ins, machine. Imports no torch."""

import os
import platform
import shutil
import subprocess
from importlib.metadata import PackageNotFoundError, entry_points, version
from typing import Any

from apd_bench.core.package_data import package_path
from apd_bench.core.registry import REGISTRIES, source_of
from apd_bench.core.versions import package_version

_PACKAGES = (
    "torch", "open_clip_torch", "numpy", "pyautoattack", "torchattacks", "safetensors", "pillow", "timm", "ray",
)  # fmt: skip


def describe_environment() -> dict[str, Any]:
    """The versions, the source commit with a dirty flag (None outside a source tree), plug-ins and machine."""
    return {
        "apd_bench": package_version(),
        "python": platform.python_version(),
        "platform": f"{platform.system()} {platform.machine()}",
        "processor_count": os.cpu_count(),
        "packages": {name: found for name in _PACKAGES if (found := installed(name)) is not None},
        "plugins": plugins(),
        **source_revision(),
    }


def plugins() -> dict[str, str]:
    """Distribution and version of every plug-in that adds entries to a registry, by "group: name"."""
    groups = (registry.group for registry in REGISTRIES)
    return {f"{group}: {point.name}": source_of(point) for group in groups for point in entry_points(group=group)}


def source_revision() -> dict[str, Any]:
    """`commit` and `dirty` of the source tree that the package is imported from; both None when it is installed."""
    root, git = package_path().parent, shutil.which("git")
    if git is None or not (root / ".git").exists():
        return {"commit": None, "dirty": None}

    def ask(*arguments: str) -> str | None:
        try:
            done = subprocess.run(  # noqa: S603  (fixed arguments, full path)
                [str(git), "-C", str(root), *arguments], capture_output=True, text=True, timeout=10, check=True
            )
        except (OSError, subprocess.SubprocessError):
            return None
        return done.stdout.strip()

    commit = ask("rev-parse", "HEAD")
    changes = ask("status", "--porcelain", "--", "apd_bench", "baselines")
    return {"commit": commit, "dirty": None if commit is None or changes is None else bool(changes)}


def installed(name: str) -> str | None:
    """The version of a distribution; None where it is not installed."""
    try:
        return version(name)
    except PackageNotFoundError:
        return None
