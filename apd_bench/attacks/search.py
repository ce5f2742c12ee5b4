"""The bookkeeping that all own attacks share: who still stands, the best point seen of each, what it cost.

Samples leave the active set as soon as they are broken; a sample that is misclassified by itself never enters it.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from apd_bench.attacks.guard import untouched
from apd_bench.attacks.inputs import check_classes, check_clean_logits, check_labels, check_pixels
from apd_bench.attacks.losses import Objective, margin
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.projections import Region
from apd_bench.core.errors import UsageError
from apd_bench.core.specs import ThreatModel


@dataclass(frozen=True)
class AttackResult:
    """Adversarial pixels, which samples broke, and what it cost.

    `adversarials` [B, 3, H, W] float32: the point that broke the sample, else the strongest point seen; a sample that
    is misclassified without any change comes back unchanged. `broken` [B] bool is the attack's own claim, which the
    audit checks. `forwards` and `backwards` count passes of single images. `columns` holds facts per sample [B] (such
    as which member of a suite broke it), `diagnostics` facts per batch, `effective` what was run where it differs from
    what was asked.
    """

    adversarials: Tensor
    broken: Tensor
    forwards: int
    backwards: int
    diagnostics: Mapping[str, Any] = field(default_factory=dict)
    columns: Mapping[str, Tensor] = field(default_factory=dict)
    effective: Mapping[str, Any] = field(default_factory=dict)


class Search:
    """One attack on B samples with K classes, as the attack sees it; "best" means the largest margin max z_j - z_y.

    An attack takes rows [A] from `batches`, starts at `region.x0[rows]` or `random(rows, ...)`, asks `meter` for
    gradients of an `objective`, moves within `region` and shows every point to `see`. `labels` [B], `logits` [B, K] and
    `clean_margin` [B] are those of the images; `best` [B, 3, H, W], `margin` [B] and `broken` [B] those of the best
    points; `late_margin` [B] is the margin after 90 % of the steps. `columns` [B], `effective` and `diagnostics` end in
    the result. `focus` [B], where it is set, lets the others rest; `folder` is where checkpoints are kept.
    """

    def __init__(
        self,
        meter: Meter,
        pixels: Tensor,
        labels: Tensor,
        threat: ThreatModel,
        ids: Sequence[str],
        seed: int,
        folder: Path | None = None,
    ) -> None:
        self.meter = meter
        self.labels = labels
        self.threat = threat
        self.ids = list(ids)
        self.seed = seed
        self.folder = folder
        self.region = Region.around(pixels, threat)
        self.best = pixels.clone()
        self.columns: dict[str, Tensor] = {}
        self.effective: dict[str, object] = {}
        self.diagnostics: dict[str, object] = {}
        self._before: tuple[int, ...] = (meter.forwards, meter.backwards, meter.zero_gradients, meter.bad_gradients)
        self.logits = meter.predict(pixels) if len(pixels) else pixels.new_zeros(0, 2)
        check_clean_logits(self.logits)
        check_classes(labels, self.logits.shape[1])
        self.clean_margin = margin(self.logits, labels)
        self.margin = self.clean_margin.clone()
        self.late_margin = self.clean_margin.clone()
        self.broken = self.logits.argmax(1) != labels
        self.focus: Tensor | None = None
        self.last = False  # a suite says so when its last member begins
        self._pending: Tensor | None = None  # the rows that the last pass of the last member has not come to yet

    @property
    def num_classes(self) -> int:
        """The number of classes K."""
        return int(self.logits.shape[1])

    def standing(self) -> Tensor:
        """The rows [A] of the samples in focus that are not broken; none where the budget is 0."""
        mask = torch.ones_like(self.broken) if self.meter.persist else ~self.broken
        if self.threat.eps == 0:
            mask = torch.zeros_like(mask)
        return (mask if self.focus is None else mask & self.focus).nonzero().squeeze(1)

    def batches(self, *, final: bool = False) -> Iterator[Tensor]:
        """The standing rows in batches that the meter allows; `final`: they are the last that a member does."""
        rows = self.standing()
        size = self.meter.batch_size or max(len(rows), 1)
        while len(rows):
            yield rows[:size]
            rows = rows[size:]
            if final:
                self.mark_pending(rows)

    def mark_pending(self, rows: Tensor) -> None:
        """Records which samples the suite's last attack has not finished; progress counts the others as settled."""
        if self.last:
            self._pending = rows

    def tally(self) -> tuple[int, int]:
        """How many samples are settled (broken, or finished by the last member), and how many are broken.

        Where broken samples stay in the search, nothing is known of the model that they are meant for: 0 are broken.
        """
        if self.meter.persist:
            return 0 if self._pending is None else len(self.broken) - len(self._pending), 0
        waiting = ~self.broken if self._pending is None else ~self.broken[self._pending]
        return len(self.broken) - int(waiting.sum()), int(self.broken.sum())

    def random(self, rows: Tensor, *key: object) -> Tensor:
        """Random points in the regions of `rows`, from (seed, key, sample id) alone."""
        return self.region.take(rows).random([self.ids[row] for row in rows.tolist()], self.seed, *key)

    def ranked_targets(self, count: int) -> Tensor:
        """The min(count, K - 1) wrong classes with the largest clean logits, strongest first, as [B, T].

        The true class is left out by its label and not by its rank, so that no attack can repair a sample.
        """
        wrong = self.logits.scatter(1, self.labels[:, None], float("-inf"))
        return wrong.argsort(dim=1, descending=True, stable=True)[:, : min(count, self.num_classes - 1)]

    def objective(self, loss: Callable[..., Tensor], *targets: Tensor) -> Objective:
        """`loss(z, y)`, or `loss(z, y, t)` for target classes t [B], as a function of logits [A, K] and rows [A]."""
        return lambda z, rows: loss(z, self.labels[rows], *(t[rows] for t in targets))

    def see(self, rows: Tensor, x: Tensor, z: Tensor) -> Tensor | None:
        """Records the points x of `rows` with their logits z; the places of those that stand if some just broke."""
        y = self.labels[rows]
        m = margin(z, y)
        hit = z.argmax(1) != y
        before, broken = self.margin[rows], self.broken[rows]
        better = (m > before) | (hit & ~broken)
        self.best.index_copy_(0, rows, x.where(better[:, None, None, None], self.best.index_select(0, rows)))
        self.margin[rows] = torch.where(better, m, before)
        self.broken[rows] = broken | hit
        if self.meter.persist or not bool(hit.any()):  # the one time in a step that the host waits for the device
            return None
        return (~hit).nonzero().squeeze(1)

    def spent(self) -> tuple[int, ...]:
        """Forwards, backwards, zero and non-finite gradients of this search so far, per image."""
        meter = self.meter
        now = (meter.forwards, meter.backwards, meter.zero_gradients, meter.bad_gradients)
        return tuple(value - before for value, before in zip(now, self._before, strict=True))

    def carry(self, spent: tuple[int, ...]) -> None:
        """Adds what an earlier, interrupted run of the same search has spent."""
        self._before = tuple(before - value for before, value in zip(self._before, spent, strict=True))

    def result(self) -> AttackResult:
        """What the attack hands back."""
        forwards, backwards, zero, bad = self.spent()
        return AttackResult(
            adversarials=self.best,
            broken=self.broken,
            forwards=forwards,
            backwards=backwards,
            diagnostics={"zero_gradients": zero, "bad_gradients": bad, **self.diagnostics},
            columns={"clean_margin": self.clean_margin, "late_margin": self.late_margin, "margin": self.margin}
            | self.columns,
            effective=self.effective,
        )


@contextmanager
def attacking(
    model: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    ids: Sequence[str],
    seed: int,
    folder: Path | None = None,
) -> Iterator[Search]:
    """Checks the input, isolates the model and the random state, and yields the search with its clean predictions.

    Raises UsageError for pixels, labels or logits that no attack can judge.
    """
    meter = Meter.of(model)
    with untouched(meter.model):
        pixels = check_pixels(pixels)
        labels = check_labels(labels, len(pixels), pixels.device)
        if len(ids) != len(pixels):
            raise UsageError(f"There are {len(ids)} sample ids for {len(pixels)} images.")
        search = Search(meter, pixels, labels, threat, ids, seed, folder)
        meter.tally = search.tally
        try:
            yield search
        finally:
            meter.tally = None
