"""Muon (Jordan et al., 2024) for many small matrices: all of one shape are orthogonalised together."""

from collections.abc import Iterable
from typing import Any

import torch
from torch import Tensor, distributed

_A, _B, _C = 3.4445, -4.7750, 2.0315


def orthogonalised(stack: Tensor, steps: int = 5) -> Tensor:
    """[N, R, C] (R <= C) matrices with their singular values pushed towards one by Newton-Schulz iterations."""
    x: Tensor = stack / torch.linalg.vector_norm(stack, dim=(1, 2), keepdim=True).clamp_min(1e-7)
    for _ in range(steps):
        gram = x @ x.mT
        x = _A * x + (_B * gram + _C * gram @ gram) @ x
    return x


def _shared_work(stack: Tensor) -> Tensor:
    """`orthogonalised`, each process of a group doing its share."""
    if not distributed.is_initialized():
        return orthogonalised(stack)
    rank, world = distributed.get_rank(), distributed.get_world_size()
    done = torch.zeros(stack.shape)
    done[rank::world] = orthogonalised(stack[rank::world])
    distributed.all_reduce(done)
    return done


class Muon(torch.optim.Optimizer):
    """Momentum, orthogonalised; fused query-key-value matrices count as three. Step size matched to AdamW's RMS."""

    def __init__(
        self, matrices: Iterable[Tensor], lr: float, weight_decay: float = 0.1, momentum: float = 0.95
    ) -> None:
        super().__init__(matrices, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:  # type: ignore[override]
        """One update."""
        for group in self.param_groups:
            by_shape: dict[tuple[int, ...], list[tuple[Tensor, Tensor]]] = {}
            for parameter in group["params"]:
                if parameter.grad is None:
                    continue
                state = self.state[parameter]
                buffer = state.setdefault("momentum_buffer", torch.zeros_like(parameter))
                buffer.lerp_(parameter.grad, 1 - group["momentum"])
                update = parameter.grad.lerp(buffer, group["momentum"])
                rows, columns = parameter.shape
                parts = 3 if rows == 3 * columns else 1
                for target, change in zip(parameter.chunk(parts), update.chunk(parts), strict=True):
                    by_shape.setdefault(tuple(target.shape), []).append((target, change))
            for (rows, columns), pairs in by_shape.items():
                stack = torch.stack([change for _, change in pairs])
                tall = rows > columns
                done = _shared_work(stack.mT if tall else stack)
                done = done.mT if tall else done
                size = 0.2 * max(rows, columns) ** 0.5 * group["lr"]
                for (target, _), change in zip(pairs, done, strict=True):
                    target.mul_(1 - group["lr"] * group["weight_decay"]).sub_(change, alpha=size)
