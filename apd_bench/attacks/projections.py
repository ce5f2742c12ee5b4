"""The feasible set of an attack, the norm ball around each image cut with [0,1], and how to move in it."""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import torch
from torch import Tensor

from apd_bench.core.identity import derive_seed
from apd_bench.core.specs import ThreatModel

_THREADS = 8  # that draw random starts while a GPU waits: one by one they cost milliseconds at 224 pixels


@dataclass(frozen=True)
class Region:
    """The points within ε of x0 [B, 3, H, W] and within [0,1]; `low` and `high` [B, 3, H, W] are its Linf box."""

    x0: Tensor
    low: Tensor
    high: Tensor
    ε: float
    norm: str

    @classmethod
    def around(cls, x0: Tensor, threat: ThreatModel) -> "Region":
        """The region that the threat allows around x0."""
        ε = float(threat.eps)
        if threat.norm == "Linf":
            return cls(x0, (x0 - ε).clamp_(min=0), (x0 + ε).clamp_(max=1), ε, "Linf")
        return cls(x0, torch.zeros_like(x0), torch.ones_like(x0), ε, "L2")

    def take(self, rows: Tensor) -> "Region":
        """The region of some samples, by index or mask."""
        return Region(self.x0[rows], self.low[rows], self.high[rows], self.ε, self.norm)

    def project(self, x: Tensor) -> Tensor:
        """X moved into the region. For L2: scaled to the ball, then clipped, which never leaves the ball."""
        if self.norm == "L2":
            δ = x - self.x0
            x = self.x0 + δ * (self.ε / l2(δ).clamp_(min=1e-12)).clamp_(max=1)
        return torch.clamp(x, self.low, self.high)

    def direction(self, g: Tensor) -> Tensor:
        """The steepest ascent direction for the gradient g: its sign, or g / |g|_2."""
        return g.sign() if self.norm == "Linf" else g / l2(g).clamp_(min=1e-12)

    def step(self, x: Tensor, g: Tensor, α: float | Tensor) -> Tensor:
        """One ascent step of length α (in pixel units; a number or [B, 1, 1, 1]), projected."""
        if isinstance(α, Tensor):
            return self.project(x + α * self.direction(g))
        return self.project(torch.add(x, self.direction(g), alpha=α))

    def random(self, sample_ids: Sequence[str], *key: object) -> Tensor:
        """A point of the region for each sample, drawn from (key, sample id) alone: no batch, no order, no device.

        Linf: uniform in the box of half-width ε. L2: uniform in the ball. Both are then projected.
        """
        shape = self.x0.shape[1:]
        seeds = [derive_seed(*key, name) for name in sample_ids]
        noise = _draw_all(shape, self.norm, seeds, threads=_THREADS if self.x0.device.type == "cuda" else 1)
        return self.project(self.x0 + self.ε * noise.to(self.x0))


def l2(δ: Tensor) -> Tensor:
    """The L2 norm of each sample as [B, 1, 1, 1]."""
    norm: Tensor = torch.linalg.vector_norm(δ, dim=(1, 2, 3), keepdim=True)
    return norm


def distance(x: Tensor, x0: Tensor, norm: str) -> Tensor:
    """The norm of x - x0 for each sample [B], summed in float64, so that its own rounding cannot exceed a budget."""
    δ = (x - x0).flatten(1)
    far: Tensor = δ.abs().amax(1) if norm == "Linf" else torch.linalg.vector_norm(δ, dim=1, dtype=torch.float64)
    return far.double()


def _draw_all(shape: torch.Size, norm: str, seeds: Sequence[int], *, threads: int) -> Tensor:
    """A draw for each seed as [B, 3, H, W]; in threads, so that a device waits less: the numbers are the same."""
    if threads == 1:
        return torch.stack([_draw(shape, norm, seed) for seed in seeds])
    with ThreadPoolExecutor(threads) as pool:
        return torch.stack(list(pool.map(lambda seed: _draw(shape, norm, seed), seeds)))


def _draw(shape: torch.Size, norm: str, seed: int) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    if norm == "Linf":
        return torch.rand(shape, generator=generator).mul_(2).sub_(1)
    direction = torch.randn(shape, generator=generator)
    radius = torch.rand((), generator=generator) ** (1 / direction.numel())
    return direction.mul_(float(radius / torch.linalg.vector_norm(direction)))
