"""The attacks that others are measured against: none, uniform noise, one gradient step."""

from apd_bench.attacks.losses import LOSSES
from apd_bench.attacks.pgd import projected_ascent
from apd_bench.attacks.search import Search


def none(search: Search) -> None:
    """The unchanged images: only misclassified samples are broken."""


def noise(search: Search, *, draws: int) -> None:
    """Uniform noise within the ball; `draws` tries for each sample. An attack that is no better is masked."""
    for draw in range(draws):
        for rows in search.batches():
            x = search.random(rows, "noise", draw)
            search.see(rows, x, search.meter.predict(x))


def fgsm(search: Search, *, loss: str) -> None:
    """x0 + ε sgn ∇f(x0), one step from the image itself (Goodfellow et al., ICLR 2015, section 4)."""
    for rows in search.batches():
        x0 = search.region.x0[rows]
        projected_ascent(search, rows, x0, search.objective(LOSSES[loss]), [search.threat.eps])
