"""AutoAttack (Croce & Hein, ICML 2020) by its authors' code, the pyautoattack package, behind one careful adapter.

The members run in the standard order on the samples that still stand, all of them in one batch where memory allows,
with the parameters of the standard version. What the adapter adds is bookkeeping: its own verdicts, a checkpoint after
every member and batch, the class count repaired, logits that cannot saturate, and nothing left changed.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from pathlib import Path
from typing import Any, cast

from torch import Tensor

from apd_bench.attacks.catalog import STANDARD
from apd_bench.attacks.checkpoint import Checkpoint, Progress
from apd_bench.attacks.guard import captured_log, same_trace
from apd_bench.attacks.losses import LOSSES
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.pgd import lengths
from apd_bench.attacks.result import AttackResult
from apd_bench.attacks.search import Search, ascend, attacking
from apd_bench.attacks.targeted import ranked_targets, toward
from apd_bench.specs import ThreatModel

SAFE_MARGIN = 10.0  # cross-entropy in float32 is exact to 1e-4 below this margin and wrong above 17

_OWN = ("margin", "margin-t")  # what stands in for DLR and targeted DLR where there are too few classes
Perturb = Callable[[Tensor, Tensor], Tensor]


def autoattack(
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    *,
    sample_ids: Sequence[str],
    seed: int = 0,
    members: Sequence[str] = STANDARD,
    iterations: int = 100,
    targets: int = 9,
    queries: int = 5000,
    eot: int = 1,
    checkpoint: Path | None = None,
) -> AttackResult:
    """The members one after the other, each on the survivors of those before; the defaults are the standard version.

    For K <= 9 classes the targets are cut to K - 1; for K <= 3 the targeted DLR loss, which needs four logits, is
    replaced by the targeted margin, for K = 2 DLR by the margin. `effective` says what ran. With a folder in
    `checkpoint`, a killed attack resumes after its last finished member and batch. The columns `broken_NAME` say who
    was broken once NAME had run.
    """
    with attacking(classifier, pixels, labels, threat, sample_ids, seed) as search:
        suite = _Suite(search, iterations=iterations, targets=targets, queries=queries, eot=eot)
        plan = [_replacement(name, search.num_classes) for name in members]
        if "square" in plan and not _square_fits(search):
            plan.remove("square")
            search.effective["left_out"] = "square: its L2 version cannot tile images of this size"
        options = {"members": plan, "iterations": iterations, "targets": targets, "queries": queries, "eot": eot}
        state = Checkpoint(checkpoint, search, options)
        progress = state.load()
        with captured_log("auto-attack") as log, same_trace():
            for index in range(progress.member, len(plan)):
                name, search.last = plan[index], index == len(plan) - 1
                if name in _OWN:
                    _run_own(search, name, iterations, suite.targets)
                else:
                    _run_member(search, suite.member(name), progress, state)
                search.columns[f"broken_{name}"] = search.broken.clone()
                progress = Progress(index + 1)
                state.save(progress)
        state.remove()
        search.effective |= {
            **options, "targets": suite.targets, "package": f"pyautoattack {version('pyautoattack')}",
            "ce_logit_scale": suite.scale,
        }  # fmt: skip
        search.diagnostics["warnings"] = dict(Counter(log))
    return search.result()


def _run_member(search: Search, perturb: Perturb, progress: Progress, state: Checkpoint) -> None:
    """One member on all samples that stand, batch by batch; its points are projected and judged here."""
    rows = search.standing() if progress.pending is None else progress.pending
    size = search.meter.batch_size or max(len(rows), 1)
    search.through(rows)
    while len(rows):
        batch, rows = rows[:size], rows[size:]
        x = perturb(search.region.x0[batch], search.labels[batch])
        x = search.region.take(batch).project(x.detach())
        search.see(batch, x, search.meter.predict(x))
        search.through(rows)
        if len(rows):
            state.save(Progress(progress.member, rows))


def _run_own(search: Search, name: str, iterations: int, targets: int) -> None:
    """PGD on the (targeted) margin in the place of a member that needs more classes."""
    α = lengths(iterations, 0.25 * search.threat.eps, "cosine")
    if name == "margin-t":
        for place, t in enumerate(ranked_targets(search, targets).unbind(1)):
            toward(search, t, α, place)
        return
    for rows in search.batches():
        x = search.random(rows, "margin")
        ascend(search, rows, x, lambda z, rows: LOSSES["margin"](z, search.labels[rows]), α)


def _replacement(member: str, num_classes: int) -> str:
    """The member that can run with so few classes."""
    if member == "apgd-t" and num_classes <= 3:
        return "margin-t"
    return "margin" if member == "apgd-dlr" and num_classes <= 2 else member


def _square_fits(search: Search) -> bool:
    """False for the image sizes below 20 pixels on which pyautoattack's L2 Square writes beyond the image."""
    height, width = search.region.x0.shape[-2:]
    tile, edge = height // 5, height % 5 // 2
    return search.threat.norm == "Linf" or (
        tile > 0 and all(edge + side // tile * tile <= side for side in (height, width))
    )


class _Suite:
    """The members, made ready for one search."""

    def __init__(self, search: Search, *, iterations: int, targets: int, queries: int, eot: int) -> None:
        from pyautoattack import AutoAttack

        self.search = search
        self.targets = min(targets, search.num_classes - 1)
        standing = search.clean_margin[~search.broken]
        middle = float(-standing.median()) if len(standing) else 0.0
        self.scale = round(SAFE_MARGIN / middle, 6) if middle > SAFE_MARGIN else 1.0
        library = AutoAttack(
            search.meter,
            attacks=["apgd-ce"],
            device=search.labels.device,
            eps=search.threat.eps,
            norm=search.threat.norm,
            seed=search.seed,
            version="custom",
        )
        for attack in (library.apgd, library.apgd_targeted):
            attack.n_iter, attack.n_restarts, attack.eot_iter = iterations, 1, eot
            attack.n_iter_2 = max(int(0.22 * iterations), 1)
            attack.n_iter_min = max(int(0.06 * iterations), 1)
            attack.size_decr = max(int(0.03 * iterations), 1)
        library.apgd_targeted.n_target_classes = library.fab.n_target_classes = self.targets
        library.fab.n_iter, library.fab.n_restarts = iterations, 1
        library.square.n_queries = queries
        self.library = library

    def member(self, name: str) -> Perturb:
        """The member's perturb function: images [A, 3, H, W] and labels [A] to perturbed images."""
        library: Any = self.library
        if name in ("apgd-ce", "apgd-dlr"):
            library.apgd.loss = name.removeprefix("apgd-")
            library.apgd.model = self._scaled if name == "apgd-ce" else self.search.meter
            return cast("Perturb", library.apgd.perturb)
        library.fab.targeted = name == "fab-t"
        attack = {"apgd-t": library.apgd_targeted, "square": library.square}.get(name, library.fab)
        return lambda x, y: attack.perturb(x, y)

    def _scaled(self, x: Tensor) -> Tensor:
        return self.search.meter(x) * self.scale
