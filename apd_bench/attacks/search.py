"""The bookkeeping that all own attacks share: who still stands, the best point seen of each, what it cost.

Samples leave the active set as soon as they are broken; a sample that is misclassified by itself never enters it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor

from apd_bench.attacks.guard import untouched
from apd_bench.attacks.inputs import check_classes, check_clean_logits, check_labels, check_pixels
from apd_bench.attacks.kept import keep
from apd_bench.attacks.losses import margin
from apd_bench.attacks.meter import Meter, Model
from apd_bench.attacks.projections import Region
from apd_bench.attacks.result import AttackResult
from apd_bench.errors import UsageError
from apd_bench.specs import ThreatModel


class Search:
    """One attack on one batch of B samples; "best" means the largest margin max_{j != y} z_j - z_y."""

    def __init__(
        self, meter: Meter, pixels: Tensor, labels: Tensor, threat: ThreatModel, ids: Sequence[str], seed: int
    ) -> None:
        self.meter = meter
        self.labels = labels
        self.threat = threat
        self.ids = list(ids)
        self.seed = seed
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
        self.focus: Tensor | None = None  # [B]; where set, those outside it rest
        self.last = False  # a suite says so when its last member begins
        self._left: Tensor | None = None  # the rows that the last pass of the last member has not come to yet

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
                self.through(rows)

    def through(self, left: Tensor) -> None:
        """Takes note that a member is through with its samples but for the rows `left`; counts for the last member."""
        if self.last:
            self._left = left

    def tally(self) -> tuple[int, int]:
        """How many samples are settled (broken, or the last member is through with them), and how many are broken.

        Where broken samples stay in the search, nothing is known of the model that they are meant for: 0 are broken.
        """
        if self.meter.persist:
            return 0 if self._left is None else len(self.broken) - len(self._left), 0
        waiting = ~self.broken if self._left is None else ~self.broken[self._left]
        return len(self.broken) - int(waiting.sum()), int(self.broken.sum())

    def random(self, rows: Tensor, *key: object) -> Tensor:
        """Random points in the regions of `rows`, from (seed, key, sample id) alone."""
        return self.region.take(rows).random([self.ids[row] for row in rows.tolist()], self.seed, *key)

    def see(self, rows: Tensor, x: Tensor, z: Tensor) -> Tensor | None:
        """Records the points x of `rows` with their logits z; the places of those that stand if some just broke."""
        y = self.labels[rows]
        m = margin(z, y)
        hit = z.argmax(1) != y
        before, broken = self.margin[rows], self.broken[rows]
        better = (m > before) | (hit & ~broken)
        keep(self.best, rows, x, better)
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
    classifier: Model | Meter,
    pixels: Tensor,
    labels: Tensor,
    threat: ThreatModel,
    sample_ids: Sequence[str],
    seed: int,
) -> Iterator[Search]:
    """Checks the input, isolates the model and the random state, and yields the search with its clean predictions.

    Raises UsageError for pixels, labels or logits that no attack can judge.
    """
    meter = Meter.of(classifier)
    with untouched(meter.model):
        pixels = check_pixels(pixels)
        labels = check_labels(labels, len(pixels), pixels.device)
        if len(sample_ids) != len(pixels):
            raise UsageError(f"There are {len(sample_ids)} sample ids for {len(pixels)} images.")
        search = Search(meter, pixels, labels, threat, sample_ids, seed)
        meter.tally = search.tally
        try:
            yield search
        finally:
            meter.tally = None


def ascend(
    search: Search,
    rows: Tensor,
    x: Tensor,
    loss: Callable[[Tensor, Tensor], Tensor],
    lengths: Sequence[float],
) -> None:
    """Projected gradient ascent of `loss(logits, rows)` from x [A, 3, H, W], one step for each of `lengths` (pixels).

    Each step costs one gradient for every sample that still stands; the last point costs one forward pass. The steps
    are written into x, which must be nobody else's.
    """
    region = search.region.take(rows)
    late = int(0.9 * len(lengths))
    for i, α in enumerate(lengths):
        if i == late:
            search.late_margin[rows] = search.margin[rows]
        z, _, g = search.meter.gradient(x, lambda z, rows=rows: loss(z, rows))  # type: ignore[misc]
        standing = search.see(rows, x, z)
        if standing is not None:
            if not len(standing):
                return
            rows, x, g, region = rows[standing], x[standing], g[standing], region.take(standing)
        x = region.advance(x, g, α)
    search.see(rows, x, search.meter.predict(x))
