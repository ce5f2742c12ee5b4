"""apd-bench: fair, attackable, resumable comparison of adversarial prompt tuning for CLIP-like models."""

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    __version__: str
    from apd_bench.api import evaluate as evaluate
    from apd_bench.runner.classifiers import load_classifier as load_classifier
    from apd_bench.runner.run import load_records as load_records
    from apd_bench.runner.run import run as run

__all__ = ["__version__", "evaluate", "load_classifier", "load_records", "run"]
_WHERE = {
    "evaluate": "api",
    "load_classifier": "runner.classifiers",
    "load_records": "runner.run",
    "run": "runner.run",
}


def __dir__() -> list[str]:
    """What completion shows: the public API."""
    return sorted(__all__)


def __getattr__(name: str) -> Any:
    """Resolves the version and the public API on first use, so that importing the package imports next to nothing."""
    if name in _WHERE:
        return getattr(import_module(f"apd_bench.{_WHERE[name]}"), name)
    if name == "__version__":
        return import_module("apd_bench.core.versions").package_version()
    raise AttributeError(f"module 'apd_bench' has no attribute '{name}'")
