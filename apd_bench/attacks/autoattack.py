"""AutoAttack (Croce & Hein, ICML 2020) by its authors' code, the pyautoattack package, behind one careful adapter.

The members run in the standard order on the samples that still stand, all of them in one batch where memory allows,
with the parameters of the standard version. What the adapter adds is bookkeeping: its own verdicts, a checkpoint after
every member and batch, the class count repaired, logits that cannot saturate, and nothing left changed.
"""

from collections import Counter
from collections.abc import Callable, Sequence
from importlib.metadata import version
from typing import Any, cast

from torch import Tensor

from apd_bench.attacks.checkpoint import Checkpoint
from apd_bench.attacks.guard import captured_log
from apd_bench.attacks.losses import margin
from apd_bench.attacks.pgd import lengths, pgd_targeted, projected_ascent
from apd_bench.attacks.search import Search

SAFE_MARGIN = 10.0  # cross-entropy in float32 is exact to 1e-4 below this margin and wrong above 17

_OWN: Any = {"step": 0.25, "schedule": "cosine", "start": "uniform"}  # PGD for (targeted) DLR, for too few classes
Perturb = Callable[[Tensor, Tensor], Tensor]


def autoattack(
    search: Search, *, members: Sequence[str], iterations: int, targets: int, queries: int, eot: int
) -> None:
    """The members one after the other, each on the survivors of those before; the defaults are the standard version.

    For K <= 9 classes the targets are cut to K - 1; for K <= 3 the targeted DLR loss, which needs four logits, is
    replaced by the targeted margin, for K = 2 DLR by the margin. `effective` says what ran. The columns `broken_NAME`
    [B] say who was broken once NAME had run.
    """
    options = {"iterations": iterations, "targets": targets, "queries": queries, "eot": eot}
    suite = _Suite(search, **options)
    few = {"apgd-t": "margin-t"} if search.num_classes <= 3 else {}  # what can run with so few classes
    few |= {"apgd-dlr": "margin"} if search.num_classes <= 2 else {}
    plan = [few.get(name, name) for name in members]
    if "square" in plan and not _square_fits(search):
        plan.remove("square")
        search.effective["left_out"] = "square: its L2 version cannot tile images of this size"
    checkpoint = Checkpoint(search, plan, options)
    with captured_log("auto-attack") as log:
        for name in checkpoint.remaining():
            if name == "margin-t":
                pgd_targeted(search, steps=iterations, targets=suite.targets, **_OWN)
            elif name == "margin":  # PGD on the margin in the place of a member that needs three classes
                α = lengths(iterations, _OWN["step"] * search.threat.eps, _OWN["schedule"])
                for rows in search.batches():
                    projected_ascent(search, rows, search.random(rows, "margin"), search.objective(margin), α)
            else:
                _run_member(search, suite.member(name), checkpoint)
    search.effective |= {
        "members": plan, **options, "targets": suite.targets, "package": f"pyautoattack {version('pyautoattack')}",
        "ce_logit_scale": suite.scale,
    }  # fmt: skip
    search.diagnostics["warnings"] = dict(Counter(log))


def _run_member(search: Search, perturb: Perturb, checkpoint: Checkpoint) -> None:
    """One member on all samples that stand, batch by batch; its points are projected and judged here."""
    rows = search.standing() if checkpoint.pending is None else checkpoint.pending
    size = search.meter.batch_size or max(len(rows), 1)
    search.mark_pending(rows)
    while len(rows):
        batch, rows = rows[:size], rows[size:]
        x = perturb(search.region.x0[batch], search.labels[batch])
        x = search.region.take(batch).project(x.detach())
        search.see(batch, x, search.meter.predict(x))
        search.mark_pending(rows)
        if len(rows):
            checkpoint.save(rows)


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
            meter, scale = self.search.meter, self.scale
            library.apgd.model = (lambda x: meter(x) * scale) if name == "apgd-ce" else meter
            return cast("Perturb", library.apgd.perturb)
        library.fab.targeted = name == "fab-t"
        attack = {"apgd-t": library.apgd_targeted, "square": library.square}.get(name, library.fab)
        return lambda x, y: attack.perturb(x, y)
