"""An attack in one file: MI-FGSM (Dong et al., CVPR 2018, algorithm 1), PGD with momentum and without a random start.

apd-bench run --attacks 'example_attack.py:MI_FGSM(steps=20),pgd'
"""

import torch

from apd_bench.attacks.catalog import AttackEntry
from apd_bench.attacks.losses import stable_ce
from apd_bench.attacks.search import Search


def mi_fgsm(search: Search, *, steps: int, mu: float) -> None:
    """g <- μ g + ∇f / |∇f|_1, x <- Π(x + α sgn g) with α = ε / steps; survivors [A] of [B] go on."""
    f, α = search.objective(stable_ce), search.threat.eps / steps
    for rows in search.batches():
        x = search.region.x0[rows]  # [A, 3, H, W]
        g = torch.zeros_like(x)
        for _ in range(steps):
            z, _, slope = search.meter.gradient(x, f, rows)
            g = mu * g + slope / slope.abs().sum((1, 2, 3), keepdim=True).clamp_min(1e-12)
            standing = search.see(rows, x, z)  # keeps the best points; who stands, if some just broke
            if standing is not None:
                rows, x, g = rows[standing], x[standing], g[standing]
            if not len(rows):
                break
            x = search.region.take(rows).step(x, g, α)
        else:
            search.see(rows, x, search.meter.predict(x))


MI_FGSM = AttackEntry(
    "mi-fgsm",
    f"{__name__}:mi_fgsm",
    "momentum iterative FGSM",
    {"steps": 10, "mu": 1.0},  # the options and their defaults: here alone
    paper="Dong et al., CVPR 2018",
)
