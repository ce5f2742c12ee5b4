"""The attack that expects the defence: per sample the worst of what each way round an adaptation finds.

After Croce et al., 'Evaluating the adversarial robustness of adaptive test-time defenses' (ICML 2022), with each member
an attack of this package on another model: the undefended one, the defence with its adaptation replayed, unrolled or
left out of the backward pass, its gate held off, or nothing but its answers. Cheap members come first, and only what
they leave goes on. A point counts once most predictions of draws that no gradient has seen are wrong; the verdict is
made of yet other draws, so nothing is gained by luck.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from apd_bench.attacks import apgd, run
from apd_bench.attacks.checkpoint import Checkpoint
from apd_bench.attacks.losses import margin
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.search import Search, attacking
from apd_bench.defences.base import Attacked, Defence, Verdict, majority

_SCREEN, _CONFIRM = 3, 15  # predictions that a point of a random defence is tried on: at first, and if one is wrong
_SURE = 0.1  # a sample leaves once at most this share of the latter is right: at 0.3, a majority of 9 stands in 1 of 10
_LOOKS = 4  # iterates of a run that are tried on the defence, beside the best
_PROBES = 8  # samples that the number of draws is measured on, and that transferred examples are compared on
_WEIGHTS = (0.1, 1.0, 10.0)  # of the penalty that keeps a gate off, in units of the loss's own gradient
_SAME = 0.1  # up to this gap between replayed and unrolled gradients, unrolling has nothing to add
_MEASURED = 4  # draws that their agreement is measured with


def adaptive(
    search: Search,
    *,
    iterations: int,
    near: int,
    targets: int,
    draws: int,
    queries: int,
    budget: int,
    order: Sequence[str],
) -> None:
    """The members of `order` that the defence has a use for; `broken_NAME` says who was broken once NAME had run.

    - "transfer": auto-PGD on the model without its defence, on cross-entropy, margin and the targeted losses; several
      iterates of each run are tried on the defence.
    - "straight": auto-PGD on the defence with the gradient of the model without it, for whatever hides a gradient.
    - "replay", "unrolled": auto-PGD through the defence, its adaptation a constant, or differentiated through.
    - "gate": the same with the gate held off, by a penalty of several weights.
    - "square": `queries` of Square through the whole defence.

    Runs have `iterations` steps, `near` of them towards the nearest classes. A gradient of a random defence is the mean
    over as many draws as it takes for two such means to agree, at most `draws`. Nothing begins, and a run ends, after
    `budget` image passes of the model for each sample that is attacked.
    """
    hunt = _Hunt(search, iterations=iterations, near=near, targets=targets, draws=draws, budget=budget)
    members: dict[str, Callable[[], None]] = {
        "transfer": hunt.transfer,
        "straight": lambda: hunt.through("straight"),
        "replay": lambda: hunt.through("replay"),
        "unrolled": lambda: hunt.through("unrolled"),
        "gate": hunt.gate,
        "square": lambda: hunt.square(queries),
    }
    plan = [name for name in order if hunt.has(name)]
    options = {"iterations": iterations, "near": near, "targets": targets, "draws": draws, "queries": queries,
               "budget": budget}  # fmt: skip
    for name in Checkpoint(search, plan, options).remaining():
        try:
            members[name]()
        except _Spent:
            search.effective.setdefault("out_of_budget", name)
        hunt.account()
    search.diagnostics["marks"] = hunt.compare()
    search.effective |= {"members": plan, "eot": hunt.eot}


class _Plain(Defence):
    """A model without a defence."""

    def predict(self, x: Tensor, noise: None) -> Tensor:
        return self.logits(x)


class _Spent(Exception):
    """The budget is used up."""


class _Through(nn.Module):
    """A defence to differentiate through in one of the ways, with a new draw for every pass."""

    def __init__(self, defence: Defence, way: str, *key: object) -> None:
        super().__init__()
        self.defence, self.way, self.key, self.passes = defence, way, key, 0

    def forward(self, x: Tensor) -> Tensor:
        self.passes += 1
        draw = ("attack", *self.key, self.passes)
        if self.way == "straight" and x.requires_grad:
            z = self.defence.logits(x)
            with torch.no_grad():
                answer = self.defence(x.detach(), draw)
            z = functional.pad(z, (0, answer.shape[1] - z.shape[1]))  # a defence may have an answer more: to abstain
            straight: Tensor = z + (answer - z).detach()
            return straight
        self.defence.unrolled = self.way == "unrolled" and x.requires_grad
        try:
            prediction: Tensor = self.defence(x, draw)
        finally:
            self.defence.unrolled = False
        return prediction


class _Mean(Meter):
    """A meter whose logits, losses and gradients are means over `draws` passes; `watch` sees some of the points."""

    draws = 1
    watch: Callable[[Tensor, Tensor], None] | None = None
    check: Callable[[], None] | None = None
    every = 1
    _seen = 0

    def predict(self, x: Tensor) -> Tensor:
        """Mean logits."""
        if self.check is not None:
            self.check()
        return torch.stack([super(_Mean, self).predict(x) for _ in range(self.draws)]).mean(0)

    def gradient(self, x: Tensor, loss: Callable[..., Tensor], *columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Mean logits, losses and gradients; `columns` begins with the rows of a search."""
        if self.check is not None:
            self.check()
        self._seen += 1
        if self.watch is not None and self._seen % self.every == 0:
            self.watch(columns[0], x)
        parts = [super(_Mean, self).gradient(x, loss, *columns) for _ in range(self.draws)]
        if len(parts) == 1:
            return parts[0]
        z, f, g = (torch.stack(part).mean(0) for part in zip(*parts, strict=True))
        return z, f, g


class _Hinged(_Mean):
    """The same with a penalty on the hinge that keeps the gate off: `weight` in units of the loss's own gradient."""

    weight = 0.0
    defence: Defence
    _scale: Tensor | None = None
    _calls = 0

    def hinge(self, x: Tensor) -> Tensor:
        """The hinge [A] of a new draw."""
        self._calls += 1
        return self.defence.hinge(x, ("gate", self.weight, self._calls))

    def measure(self, inner: Search, size: int | None) -> None:
        """Sets the scale of each sample: its loss's gradient against the hinge's, at a random point; 0 without one."""
        rows = torch.arange(len(inner.labels), device=inner.labels.device)
        scales = []
        for part in torch.split(rows, size or len(rows)):
            x = inner.random(part, "gate")
            slope, g = _slope(self.hinge, x)[1], super().gradient(x, inner.objective(margin), part)[2]
            steep = slope.abs().sum((1, 2, 3))
            scales.append(torch.where(steep > 0, g.abs().sum((1, 2, 3)) / steep.clamp_min(1e-12), 0.0))
        self._scale = torch.cat(scales)

    def gradient(self, x: Tensor, loss: Callable[..., Tensor], *columns: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Logits, the loss less the penalty, and the gradient of that."""
        z, f, g = super().gradient(x, loss, *columns)
        if self._scale is None:
            return z, f, g
        h, slope = _slope(self.hinge, x)
        w = self.weight * self._scale[columns[0]]
        return z, f - w * h, g - w[:, None, None, None] * slope


class _Hunt:
    """Who still stands, the best point of each sample by the selecting predictions, and what was spent."""

    def __init__(self, search: Search, *, iterations: int, near: int, targets: int, draws: int, budget: int) -> None:
        model = search.meter.model
        inner = model.defence if isinstance(model, Attacked) else model
        self.search, self.steps, self.near, self.targets = search, iterations, near, targets
        self.defence = inner if isinstance(inner, Defence) else _Plain(inner)
        self._trials = 0
        self.most_draws, self.most = draws, budget
        self.size = search.meter.batch_size
        self._flaws = [0, 0]
        self._before = (self.defence.forwards, self.defence.backwards)
        everyone = torch.arange(len(search.labels), device=search.labels.device)
        # The share of predictions that are right at the best point of each sample, by draws that only confirmed it.
        right = self.judge(everyone, search.best, _CONFIRM)[0] if self.defence.draws else (~search.broken).float()
        search.columns["selected"] = right
        search.columns["transferred"] = torch.zeros_like(search.broken)
        self.samples = max(len(self.rows()), 1)
        few = self.rows()[:_PROBES]
        self.eot = self._draws_for(few) if self.defence.draws else 1
        self.gap = self._unrolled_gap(few) if "unrolled" in self.defence.gradients else 0.0

    # ---------------------------------------------------------------- bookkeeping

    def has(self, name: str) -> bool:
        """Whether the defence has a use for a member."""
        if isinstance(self.defence, _Plain):
            return name in ("replay", "square")
        if name == "unrolled":
            return self.gap > _SAME
        return self.defence.gate if name == "gate" else True

    def rows(self) -> Tensor:
        """The samples that are not settled."""
        return self._standing().nonzero().squeeze(1)

    def _standing(self) -> Tensor:
        least = _SURE if self.defence.draws else 0.0
        waits: Tensor = (self.search.columns["selected"] > least) & (self.search.threat.eps > 0)
        return waits

    def judge(self, rows: Tensor, x: Tensor, repeats: int) -> tuple[Tensor, Tensor]:
        """The share [A] of new predictions of x that are right, and the margin [A] of their majority."""
        self._trials += 1
        verdict, y = Verdict(self.defence, f"selection {self._trials}", repeats), self.search.labels[rows]
        if not len(rows):
            return torch.zeros(0, device=x.device), torch.zeros(0, device=x.device)
        meter = self.search.meter.beside(
            lambda x: verdict.predictions(x).movedim(0, 1).flatten(1), batch_size=self.size
        )
        each = meter.predict(x).view(len(x), verdict.repeats, -1).movedim(1, 0)
        return (each.argmax(2) == y).float().mean(0), margin(majority(each), y)

    def offer(self, rows: Tensor, x: Tensor) -> None:
        """Tries points x of `rows`: one is better the fewer predictions are right, then by its margin.

        The draws that make a point of a random defence look good do not count: others have to confirm it, twice.
        """
        search, selected = self.search, self.search.columns["selected"]
        share, m = self.judge(rows, x, _SCREEN if self.defence.draws else _CONFIRM)
        if self.defence.draws:
            good = share <= selected[rows]
            rows, x, share, m = rows[good], x[good], share[good], m[good]
            doubt = share < 1  # of a point that no draw breaks, only the margin counts, as the place to start from
            share[doubt], m[doubt] = self.judge(rows[doubt], x[doubt], _CONFIRM)
            lucky = share <= _SURE  # one of many looks has luck: what would settle a sample has to do so again
            share[lucky], m[lucky] = self.judge(rows[lucky], x[lucky], _CONFIRM)
        before = selected[rows]
        better = (share < before) | ((share == before) & (m > search.margin[rows]))
        at = rows[better]
        search.best[at], search.margin[at], selected[at] = x[better], m[better], share[better]
        search.broken[at] = m[better] > 0

    def account(self) -> None:
        """Adds what was spent since the last time to the search: image passes of the model, and flaws of gradients."""
        now = (self.defence.forwards, self.defence.backwards)
        spent = [after - before for after, before in zip(now, self._before, strict=True)]
        self.search.carry((*spent, *self._flaws))
        self._before, self._flaws = now, [0, 0]

    def check(self) -> None:
        """Raises _Spent where the budget is used up."""
        spent = sum(self.search.spent()[:2]) + self.defence.forwards + self.defence.backwards - sum(self._before)
        if spent > self.most * self.samples:
            raise _Spent

    @contextmanager
    def on(self, model: Model, rows: Tensor, meter: _Mean, *, persist: bool) -> Iterator[Search]:
        """A search of its own for `rows` on another model.

        `persist`: broken samples stay, and some of the iterates are offered too.
        """
        outer, own = self.search, self.search.meter
        meter.model, meter.persist, meter.check = model, persist, self.check
        meter.on_step, meter._clock = own.on_step, own._clock
        ids = [outer.ids[row] for row in rows.tolist()]
        x, y = outer.region.x0[rows], outer.labels[rows]
        try:
            with attacking(meter, x, y, outer.threat, ids, outer.seed) as inner:
                if persist:
                    meter.watch, meter.every = lambda at, x: self.offer(rows[at], x), max(self.steps // _LOOKS, 1)
                try:
                    yield inner
                except _Spent:
                    meter.watch = meter.check = None
                    self.offer(rows, inner.best)
                    raise
        finally:
            self._flaws = [self._flaws[0] + meter.zero_gradients, self._flaws[1] + meter.bad_gradients]

    def runs(self, model: Model, meter: _Mean, attacks: Sequence[Callable[[Search], None]], *, persist: bool) -> None:
        """Attacks one after the other on another model; whoever is settled by one is left out of the next."""
        rows = self.rows()
        if not len(rows):
            return
        with self.on(model, rows, meter, persist=persist) as inner:
            if isinstance(meter, _Hinged):
                meter.measure(inner, self.size)
            inner.best = self.search.best[rows].clone()
            for attack in attacks:
                attack(inner)
                standing = self._standing()[rows]
                self.offer(rows[standing], inner.best[standing])
                inner.focus = self._standing()[rows]

    # ---------------------------------------------------------------- members

    def transfer(self) -> None:
        """Runs on the model without the defence."""
        attacks: list[Callable[[Search], None]] = [
            lambda inner: apgd.untargeted(inner, "stable-ce", self.steps),
            lambda inner: apgd.untargeted(inner, "margin", self.steps),
            lambda inner: apgd.near(inner, self.near, self.steps),
            lambda inner: apgd.apgd_targeted(inner, steps=self.steps, targets=self.targets),
        ]
        before = self.rows()
        size = None if self.size is None else self.size * self.defence.width
        self.runs(self.defence.logits, _Mean(self.defence.logits, batch_size=size), attacks, persist=True)
        self.search.columns["transferred"][before] = True
        self.search.columns["transferred"][self.rows()] = False

    def through(self, way: str) -> None:
        """Runs through the defence: towards the nearest classes from the best points so far, then from random ones."""
        model = _Through(self.defence, way, way)
        self.runs(model, self.mean(model), self._climbs(), persist=self.defence.draws)

    def gate(self) -> None:
        """Runs through the defence that keep its gate off."""
        for weight in _WEIGHTS:
            model = _Through(self.defence, "replay", "gate", weight)
            meter = _Hinged(model, batch_size=self.size)
            meter.draws, meter.weight, meter.defence = self.eot, weight, self.defence
            self.runs(model, meter, self._climbs(), persist=self.defence.draws)

    def square(self, queries: int) -> None:
        """Square through the whole defence."""
        model = _Through(self.defence, "replay", "square")

        def attack(inner: Search) -> None:
            at = inner.standing()
            ids = [inner.ids[row] for row in at.tolist()]
            found = run(f"autoattack.square(queries={queries})", inner.meter, inner.region.x0[at], inner.labels[at],
                        inner.threat, ids, inner.seed)  # fmt: skip
            inner.best[at] = found.adversarials

        self.runs(model, self.mean(model), [attack], persist=False)

    def _climbs(self) -> list[Callable[[Search], None]]:
        return [
            lambda inner: apgd.near(inner, self.near, self.steps),
            lambda inner: apgd.untargeted(inner, "stable-ce", self.steps),
        ]

    def mean(self, model: nn.Module) -> _Mean:
        """A meter that averages over as many draws as it takes."""
        meter = _Mean(model, batch_size=self.size)
        meter.draws = self.eot
        return meter

    # ---------------------------------------------------------------- measured

    def compare(self) -> dict[str, float]:
        """Marks of the row: what transfers and the attack through the defence alone misses, and unlike gradients."""
        marks = {"unrolled_gap": self.gap} if "unrolled" in self.defence.gradients else {}
        rows = self.search.columns["transferred"].nonzero().squeeze(1)[:_PROBES]
        if not len(rows):
            return marks
        model = _Through(self.defence, "replay", "alone")
        with attacking(self.mean(model), self.search.region.x0[rows], self.search.labels[rows], self.search.threat,
                       [self.search.ids[row] for row in rows.tolist()], self.search.seed) as inner:  # fmt: skip
            inner.meter.persist = self.defence.draws
            for climb in self._climbs():
                climb(inner)
        missed = int((self.judge(rows, inner.best, _CONFIRM)[1] <= 0).sum())
        return marks | {"transfer_gain": missed / len(rows) if missed > 1 else 0.0}  # one more or less is chance

    def _draws_for(self, rows: Tensor) -> int:
        """How many draws a gradient is the mean over.

        With a mean cosine c between the gradients of single draws, means over k have one of kc / (1 + (k-1)c)
        (Spearman and Brown); k is the smallest for which that is at least a half.
        """
        if not len(rows):
            return 1
        g = self._gradients(rows, "replay", _MEASURED)
        pairs = [(i, j) for i in range(_MEASURED) for j in range(i)]
        c = float(torch.stack([torch.cosine_similarity(g[i], g[j], dim=1) for i, j in pairs]).mean())
        self.search.effective["draw_agreement"] = round(c, 4)
        return self.most_draws if c <= 0 else max(1, min(self.most_draws, math.ceil((1 - c) / c)))

    def _unrolled_gap(self, rows: Tensor) -> float:
        """1 - <a, b> / max(|a|², |b|²), the median over `rows`, of replayed and unrolled gradients of the same draw."""
        if not len(rows):
            return 0.0
        a, b = (self._gradients(rows, way, 1)[0].double() for way in ("replay", "unrolled"))
        largest = torch.maximum((a * a).sum(1), (b * b).sum(1)).clamp_min(1e-300)
        return round(float((1 - (a * b).sum(1) / largest).median()), 4)

    def _gradients(self, rows: Tensor, way: str, count: int) -> list[Tensor]:
        """So many gradients [A, d] of the margin at the images of `rows`, of the same draws for every way."""
        meter = self.search.meter.beside(_Through(self.defence, way, "measure"), batch_size=self.size)
        x, y = self.search.region.x0[rows], self.search.labels[rows]
        return [meter.gradient(x, margin, y)[2].flatten(1) for _ in range(count)]


def _slope(hinge: Callable[[Tensor], Tensor], x: Tensor) -> tuple[Tensor, Tensor]:
    """The hinge [B] and its gradient [B, 3, H, W]."""
    with torch.enable_grad():
        x = x.detach().requires_grad_()
        h = hinge(x)
        (slope,) = torch.autograd.grad(h.sum(), x, materialize_grads=True)
    return h.detach(), slope
