"""The libraries as their users run them, without our adapters: the other side of `apd-bench bench attacks`.

Nothing else calls them. What they hand back is judged by the benchmark, not by their own success flags.
"""

from __future__ import annotations

import logging
from importlib.util import find_spec

from torch import Tensor, nn

from apd_bench.attacks.guard import same_trace


def autoattack_standard(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, seed: int, batch_size: int) -> Tensor:
    """The points [B, C, H, W] of standard AutoAttack (Linf) as pyautoattack's own driver finds them."""
    from pyautoattack import AutoAttack

    library = AutoAttack(model, norm="Linf", eps=eps, version="standard", seed=seed, device=x.device)
    targets = min(9, model(x[:1]).shape[1] - 1)  # with fewer than ten classes the library would stop with an IndexError
    library.apgd_targeted.n_target_classes = library.fab.n_target_classes = targets
    logger = logging.getLogger("auto-attack")
    level = logger.level
    logger.setLevel(logging.CRITICAL)
    try:
        with same_trace():
            points: Tensor = library.run_standard_evaluation(x, y, batch_size=batch_size)[0]
    finally:
        logger.setLevel(level)
    return points.detach()


def has_torchattacks() -> bool:
    """Whether the optional package is installed."""
    return find_spec("torchattacks") is not None


def torchattacks_pgd(model: nn.Module, x: Tensor, y: Tensor, eps: float, *, steps: int, step: float) -> Tensor:
    """The points [B, C, H, W] of torchattacks' PGD with steps of `step` (pixel units)."""
    import torchattacks

    points: Tensor = torchattacks.PGD(model, eps=eps, alpha=step, steps=steps)(x, y)
    return points.detach()
