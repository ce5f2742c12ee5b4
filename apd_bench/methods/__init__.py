"""Methods: a learner, an objective and a recipe each.

`define` makes a method of your own (see `plugins.py`); `Objective` and `Batch` are what its loss is written with.
Importing this package does not import torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from apd_bench.methods.objective import Batch as Batch
    from apd_bench.methods.objective import Objective as Objective
    from apd_bench.methods.plugins import define as define

_HOMES = {
    "Batch": "apd_bench.methods.objective",
    "Objective": "apd_bench.methods.objective",
    "define": "apd_bench.methods.plugins",
}

__all__ = ["Batch", "Objective", "define"]


def __getattr__(name: str) -> Any:
    """Resolves the public names on first use."""
    if name in _HOMES:
        return getattr(import_module(_HOMES[name]), name)
    raise AttributeError(f"module 'apd_bench.methods' has no attribute '{name}'")
