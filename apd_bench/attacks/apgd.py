"""Auto-PGD (Croce & Hein, ICML 2020, algorithm 1): momentum, and a step length that halves where it stops paying.

Unlike the original, samples leave as soon as they are broken, and the last gradient, which no step would use, is saved.
"""

from dataclasses import dataclass, fields

import torch
from torch import Tensor

from apd_bench.attacks.losses import LOSSES, Objective, targeted_dlr, targeted_margin
from apd_bench.attacks.projections import Region
from apd_bench.attacks.search import Search

_ρ = 0.75  # share of steps that have to raise the loss for the step length to stay
_MOMENTUM = 0.75


def apgd_ce(search: Search, *, steps: int, restarts: int, loss: str) -> None:
    """Auto-PGD on `loss`; each restart sees the survivors only."""
    for restart in range(restarts):
        untargeted(search, loss, steps, restart)


def apgd_targeted(search: Search, *, steps: int, targets: int, restart: int = 0) -> None:
    """Auto-PGD on targeted DLR (eq. 7) towards each of the min(targets, K - 1) strongest wrong classes in turn.

    For fewer than four classes, where that loss does not exist, on the targeted margin. The survivors of one target go
    on to the next.
    """
    key = ("apgd-t", restart) if restart else ("apgd-t",)
    ranked = search.ranked_targets(targets)
    if ranked.shape[1] != targets:
        search.effective["targets"] = ranked.shape[1]
    for place, t in enumerate(ranked.unbind(1)):
        for rows in search.batches(final=place == ranked.shape[1] - 1):
            climb(search, rows, search.random(rows, *key, place), search.objective(targeted_dlr, t), steps)


def untargeted(search: Search, loss: str, steps: int, restart: int = 0, *, final: bool = True) -> None:
    """One run of auto-PGD on `loss` for all that stand; `final`: the member's only one."""
    for rows in search.batches(final=final):
        climb(search, rows, search.random(rows, "apgd", loss, restart), search.objective(LOSSES[loss]), steps)


def near(search: Search, runs: int, steps: int) -> None:
    """`runs` runs, each from the best point so far towards the wrong class that is strongest there.

    The loss is targeted DLR and targeted margin in turn: some samples yield to one of them alone. Every class is a
    target once; where there are fewer classes than runs, they come again, from random points. The start is the best
    point of what ran before, so that few runs do.
    """
    classes = search.num_classes - 1
    t = torch.zeros_like(search.labels)
    for run in range(runs):
        objective = search.objective(targeted_margin if run % 2 else targeted_dlr, t)
        if run % classes == 0:
            tried = torch.zeros_like(search.logits, dtype=torch.bool).scatter(1, search.labels[:, None], True)
        for rows in search.batches(final=run == runs - 1):
            x = search.best[rows] if run < classes else search.random(rows, "apgd-near", run)
            t[rows] = search.meter.predict(x).masked_fill(tried[rows], float("-inf")).argmax(1)
            tried[rows, t[rows]] = True
            climb(search, rows, x, objective, steps)


def close(search: Search, targets: int, steps: int, share: float) -> None:
    """More for those alone that are close to the boundary: their best margin is at most `share` of the clean one.

    One run of 3 x `steps` on cross-entropy and one of `steps` towards each of the `targets` strongest wrong classes,
    from new random points. Nearly all that a longer attack would still break are among these.
    """
    search.focus = search.margin >= share * search.clean_margin  # margins of those that stand are negative
    search.mark_pending(search.standing())
    untargeted(search, "stable-ce", 3 * steps, restart=1, final=False)
    apgd_targeted(search, steps=steps, targets=targets, restart=1)
    search.focus = None


@dataclass
class _State:
    """The samples of one run that still stand; every field has them in its first dimension [A, ...]."""

    rows: Tensor
    x: Tensor
    old: Tensor
    g: Tensor
    f: Tensor
    η: Tensor
    best_x: Tensor
    best_g: Tensor
    best_f: Tensor
    rises: Tensor
    checked_f: Tensor
    halved: Tensor

    def take(self, mask: Tensor) -> "_State":
        return _State(*(getattr(self, item.name)[mask] for item in fields(self)))


def climb(search: Search, rows: Tensor, x: Tensor, objective: Objective, steps: int) -> None:
    """Auto-PGD (algorithm 1) from x [A, 3, H, W]; at most `steps` gradients for each sample."""
    region = search.region.take(rows)
    z, f, g = search.meter.gradient(x, objective, rows)
    flat = torch.zeros_like(f, dtype=torch.bool)
    η = torch.full_like(f, 2 * search.threat.eps)[:, None, None, None]
    s = _State(rows, x, x, g, f, η, x, g, f, torch.zeros_like(f), f, flat)
    s, region = _drop(search, s, region, z)
    checkpoints = _checkpoints(steps)
    since = 0
    for k in range(1, steps + 1):
        if not len(s.rows):
            return
        if k == int(0.9 * steps):
            search.late_margin[s.rows] = search.margin[s.rows]
        moved = region.step(s.x, s.g, s.η)
        if k > 1:
            moved = region.project(s.x + _MOMENTUM * (moved - s.x) + (1 - _MOMENTUM) * (s.x - s.old))
        s.old, s.x = s.x, moved
        if k == steps:
            search.see(s.rows, s.x, search.meter.predict(s.x))
            return
        z, f, s.g = search.meter.gradient(s.x, objective, s.rows)
        _improve(s, f)
        s, region = _drop(search, s, region, z)
        since += 1
        if k in checkpoints:
            _halve(s, since)
            since = 0


def _improve(s: _State, f: Tensor) -> None:
    s.rises = s.rises + (f > s.f)
    s.f = f
    better = f > s.best_f
    wide = better[:, None, None, None]
    s.best_x, s.best_g = torch.where(wide, s.x, s.best_x), torch.where(wide, s.g, s.best_g)
    s.best_f = torch.where(better, f, s.best_f)


def _drop(search: Search, s: _State, region: Region, z: Tensor) -> tuple[_State, Region]:
    standing = search.see(s.rows, s.x, z)
    return (s, region) if standing is None else (s.take(standing), region.take(standing))


def _halve(s: _State, since: int) -> None:
    """At a checkpoint: halve the step and return to the best point where too few steps rose, or nothing improved."""
    stuck = (~s.halved) & (s.checked_f >= s.best_f)
    halve = (s.rises <= _ρ * since) | stuck
    wide = halve[:, None, None, None]
    s.η = torch.where(wide, s.η / 2, s.η)
    s.x, s.g = torch.where(wide, s.best_x, s.x), torch.where(wide, s.best_g, s.g)
    s.f = torch.where(halve, s.best_f, s.f)
    s.halved, s.checked_f, s.rises = halve, s.best_f, torch.zeros_like(s.rises)


def _checkpoints(steps: int) -> set[int]:
    """The steps after which the step length is judged: intervals of 22 % of the steps, shrinking by 3 % down to 6 %."""
    interval, shortest, shrink = (max(int(part * steps), 1) for part in (0.22, 0.06, 0.03))
    places, place = set(), interval
    while place < steps:
        places.add(place)
        interval = max(interval - shrink, shortest)
        place += interval
    return places
