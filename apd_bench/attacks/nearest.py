"""What the minimal-norm attacks share: the nearest adversarial point of each sample, and how to tighten it."""

import torch
from torch import Tensor

from apd_bench.attacks.losses import margin, targeted_margin
from apd_bench.attacks.projections import distance, l2
from apd_bench.attacks.search import Search

_CLEAR = 1e-5  # of the range of the logits: a point counts once its margin cannot be rounding


class Nearest:
    """The nearest adversarial points [A] of the samples that are classified correctly; distances are L2."""

    def __init__(self, search: Search) -> None:
        self.search = search
        self.rows = (~search.broken).nonzero().squeeze(1)
        self.x0 = search.region.x0[self.rows]
        self.y = search.labels[self.rows]
        self.points = self.x0.clone()
        self.distance = torch.full((len(self.rows),), float("inf"), device=self.x0.device)

    def see(self, x: Tensor, z: Tensor) -> Tensor:
        """Records the points x [A, 3, H, W] with logits z [A, K]; the mask [A] of those that are adversarial."""
        adversarial = margin(z, self.y) > _CLEAR * (z.amax(1) - z.amin(1))
        far = l2(x - self.x0).flatten()
        nearer = adversarial & (far < self.distance)
        self.points[nearer] = x[nearer]
        self.distance = torch.where(nearer, far, self.distance)
        return adversarial

    def linearise(self, count: int) -> tuple[Tensor, Tensor]:
        """The distance [A] to the nearest boundary of the model's linearisation at the image, and its class [A].

        Looks at the `count` strongest wrong classes, a gradient each, and respects the box: the nearest point to a
        boundary with normal w is clip(λ w) for the λ that reaches it. On a linear model this is the answer.
        """
        ordered = self.search.ranked_targets(count)[self.rows]
        low, high = -self.x0.flatten(1), 1 - self.x0.flatten(1)
        far = torch.full_like(self.distance, float("inf"))
        nearest = ordered[:, 0].clone()
        for t in ordered.unbind(1):
            _, f, g = self.search.meter.gradient(self.x0, targeted_margin, self.y, t)
            δ = _reach(g.flatten(1), -f, low, high)
            d = torch.linalg.vector_norm(δ, dim=1)
            nearest, far = torch.where(d < far, t, nearest), torch.minimum(d, far)
        return far.clamp(1e-6, self.x0[0].numel() ** 0.5), nearest

    def tighten(self, halvings: int = 10) -> None:
        """Bisects the segment from the image to its point: a forward pass for each halving."""
        far, near = self.points.clone(), self.x0.clone()
        for _ in range(halvings):
            middle = (near + far) / 2
            adversarial = self.see(middle, self.search.meter.predict(middle))[:, None, None, None]
            far, near = torch.where(adversarial, middle, far), torch.where(adversarial, near, middle)

    def finish(self) -> None:
        """Writes the points into the search; what was never adversarial stays unbroken, at an infinite distance."""
        found = self.distance.isfinite()
        rows = self.rows[found]
        search = self.search
        search.best[rows] = self.points[found]
        search.broken[rows] = True
        column = torch.zeros(len(search.broken), dtype=torch.float64, device=self.x0.device)
        column[self.rows] = torch.where(found, distance(self.points, self.x0, "L2"), float("inf"))
        search.columns["distance"] = column


def _reach(w: Tensor, need: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """The shortest δ [A, n] in the box with w δ >= need [A], by bisection over λ; infinite where the box forbids it."""
    unit = (w * w).sum(1).clamp_min(1e-30)
    small, large = torch.zeros_like(need), need / unit * 1e4
    for _ in range(40):
        λ = (small + large) / 2
        short = (w * (λ[:, None] * w).clamp(low, high)).sum(1) < need
        small, large = torch.where(short, λ, small), torch.where(short, large, λ)
    δ = (large[:, None] * w).clamp(low, high)
    reached = (w * δ).sum(1) >= 0.999 * need
    return torch.where(reached[:, None], δ, float("inf"))
