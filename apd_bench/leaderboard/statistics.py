"""Intervals and tests on per-sample outcomes.

Means are over datasets, each of which is a mean over seeds and samples. Both are random: another draw of shots and
initial prompts, another draw of test images. The cluster bootstrap therefore resamples seeds and samples, both within
each dataset (crossed: all seeds are tested on the same samples), with the same draw for all methods, so differences
between methods are paired. Everything is counted in whole numbers before one division, so results do not depend on
the order of sums. The draws are those of `scipy.stats.bootstrap`, made here so that tables of one shape share them: a
store of 20,000 records is ranked in a tenth of the time.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]
Counts = NDArray[np.integer[Any]]
Panel = Sequence[NDArray[np.bool_]]  # one [rows, seeds, samples] array of hits per dataset

LEVEL = 0.95
ALPHA = 0.05
BOOTSTRAP_SEED = 1979
_MEMORY = 4_000_000  # numbers held at a time while resampling
_KEPT = 32_000_000  # numbers of a bootstrap that are kept for the next one, two bytes each


@dataclass(frozen=True)
class Estimate:
    """A share in [0, 1] with its 95 % interval (equal to None where it cannot be estimated) and `n` samples."""

    value: float
    low: float | None
    high: float | None
    n: int


@lru_cache(maxsize=65536)
def wilson(hits: int, n: int) -> Estimate:
    """The share `hits / n` with its Wilson interval; raises ValueError for n = 0."""
    from scipy.stats import binomtest

    if n == 0:
        raise ValueError("no samples: a share cannot be estimated")
    low, high = binomtest(hits, n).proportion_ci(LEVEL, method="wilson")
    return Estimate(hits / n, float(low), float(high), n)


def panel_means(panel: Panel) -> Floats:
    """The mean over datasets of the mean over seeds and samples, [rows]."""
    shares = [hits.sum(axis=(1, 2)) / (hits.shape[1] * hits.shape[2]) for hits in panel]
    return np.asarray(np.mean(shares, axis=0), dtype=np.float64)


def stacked(hits: Sequence[NDArray[np.bool_]], seeds: int) -> NDArray[np.bool_]:
    """Hits of several methods, [rows, seeds, samples]; those of one that learns nothing count in every seed."""
    return np.stack([np.broadcast_to(one, (seeds, one.shape[1])) for one in hits])


def resampled_means(panel: Panel, resamples: int) -> Floats:
    """`panel_means` on `resamples` bootstrap draws of seeds and samples, [rows, resamples].

    A dataset with one seed (or one sample) has nothing to resample there; its part of the uncertainty is then missing,
    which is why boards print the number of seeds beside every interval.
    """
    factors = tuple(size for hits in panel for size in hits.shape[1:])
    means = []
    for draws in (_kept_draws if sum(factors) * resamples <= _KEPT else _draws)(factors, resamples):
        remaining = iter(draws)
        shares = [_weighted(hits, next(remaining), next(remaining)) / hits[0].size for hits in panel]
        means.append(np.mean(shares, axis=0))
    return np.asarray(np.concatenate(means, axis=1), dtype=np.float64)


def interval(draws: Floats) -> Floats:
    """Both ends of the 95 % interval of draws [..., resamples]: [2, ...]."""
    return np.asarray(np.quantile(draws, [(1 - LEVEL) / 2, (1 + LEVEL) / 2], axis=-1), dtype=np.float64)


def estimates(panel: Panel, draws: Floats) -> list[Estimate]:
    """One estimate per row of `panel` from its bootstrap draws.

    Where all outcomes are alike (all broken, say) every draw is, and the bootstrap would call that certain; Wilson's
    interval for as many samples stands there instead.
    """
    n = sum(hits.shape[2] for hits in panel)
    single = all(size == 1 for hits in panel for size in hits.shape[1:])
    found = []
    for mean, lo, hi in zip(panel_means(panel).tolist(), *interval(draws).tolist(), strict=True):
        if single:
            found.append(Estimate(mean, None, None, n))
        elif mean in (0.0, 1.0):
            found.append(wilson(n if mean else 0, n))
        else:
            found.append(Estimate(mean, lo, hi, n))
    return found


def accuracies(panel: Panel, resamples: int) -> list[Estimate]:
    """One estimate per row of `panel`: Wilson's of one set with one seed, else from so many bootstrap draws."""
    if len(panel) == 1 and panel[0].shape[1] == 1:
        return [wilson(int(hits.sum()), hits.size) for hits in panel[0]]
    return estimates(panel, resampled_means(panel, resamples))


def bootstrap_p(draws: Floats) -> float:
    """Two-sided p of "the difference is zero" from draws of the difference, never below 2 / (draws + 1)."""
    total = len(draws) + 1
    return float(min(1.0, 2 * min((1 + np.sum(draws <= 0)) / total, (1 + np.sum(draws >= 0)) / total)))


def holm(p_values: Sequence[float]) -> list[float]:
    """The p-values adjusted for their number after Holm: none is below that of a smaller p-value, none above 1."""
    p = np.asarray(p_values, dtype=np.float64)
    order = np.argsort(p, kind="stable")
    adjusted = np.empty_like(p)
    adjusted[order] = np.minimum(1.0, np.maximum.accumulate(p[order] * np.arange(len(p), 0, -1)))
    return [float(value) for value in adjusted]


def mcnemar_p(only_first: int, only_second: int) -> float:
    """Exact McNemar test on the numbers of samples that only one of two methods gets right."""
    from scipy.stats import binomtest

    pairs = only_first + only_second
    return float(binomtest(only_first, pairs).pvalue) if pairs else 1.0


def resamples_for(rows: int) -> int:
    """How many draws let the smallest possible p survive Holm's correction over all pairs of `rows` methods."""
    pairs = rows * (rows - 1) // 2
    return int(np.clip(100 * pairs, 5000, 50_000)) - 1


def rank_ranges(means: Floats, draws: Floats) -> list[tuple[int, int]]:
    """The ranks that each row may have, given all differences that are significant (paired, Holm over all pairs).

    The first is one plus the number of rows that are better, the last leaves out those that are worse. A row is never
    behind one with a lower mean: paired differences vary in spread, so the counts alone could be.
    """
    rows = len(means)
    pairs = [(i, j) for i in range(rows) for j in range(i + 1, rows)]
    adjusted = holm([bootstrap_p(draws[i] - draws[j]) for i, j in pairs])
    better, worse = [0] * rows, [0] * rows
    for (i, j), p in zip(pairs, adjusted, strict=True):
        if p < ALPHA and means[i] != means[j]:
            high, low = (i, j) if means[i] > means[j] else (j, i)
            better[low] += 1
            worse[high] += 1
    return [
        (
            1 + min(better[j] for j in range(rows) if means[j] <= means[i]),
            rows - min(worse[j] for j in range(rows) if means[j] >= means[i]),
        )
        for i in range(rows)
    ]


def difference(draws: Floats, reference: Floats, value: float, n: int) -> Estimate:
    """A mean less that of a reference, `value`, with the interval of their paired draws; none where nothing varies."""
    low, high = interval(draws - reference).tolist()
    return Estimate(value, low, high, n) if low < high else Estimate(value, None, None, n)


def harmonic_mean(first: float, second: float) -> float:
    """The harmonic mean of two shares; 0 when either is 0."""
    return 0.0 if first <= 0 or second <= 0 else 2 * first * second / (first + second)


def _draws(factors: tuple[int, ...], resamples: int) -> Iterator[tuple[Counts, ...]]:
    """How often each of the items of every factor is in each draw, [size, draws], some draws at a time.

    These are the draws of `scipy.stats.bootstrap` with the same seed and batch, one factor after the other.
    """
    generator = np.random.default_rng(BOOTSTRAP_SEED)
    varying = sum(size for size in factors if size > 1)
    batch = int(np.clip(_MEMORY // max(varying, 1), 1, resamples))
    for start in range(0, resamples, batch):
        number = min(batch, resamples - start)
        yield tuple(_counts(generator.integers(0, size, (number, size)), size) for size in factors)


@lru_cache(maxsize=4)
def _kept_draws(factors: tuple[int, ...], resamples: int) -> tuple[tuple[Counts, ...], ...]:
    """The draws, kept for the next table: the tables of a store are mostly of one shape."""
    return tuple(_draws(factors, resamples))


def _counts(draw: NDArray[np.int64], size: int) -> Counts:
    rows = len(draw)
    draw += size * np.arange(rows)[:, None]
    counts = np.bincount(draw.ravel(), minlength=rows * size).reshape(rows, size)
    return np.ascontiguousarray(counts.astype(np.uint16 if size < 2**16 else np.int64).T)


def _weighted(hits: NDArray[np.bool_], seeds: Counts, samples: Counts) -> Floats:
    """Sums of `hits` [rows, seeds, samples] under draw counts [seeds, draws] and [samples, draws]: [rows, draws]."""
    # Every sum is a whole number, at most seeds * samples, so single precision is exact below 2^24 and twice as fast.
    rows, size, n = hits.shape
    kind = np.float32 if size * n < 2**24 else np.float64
    per_seed = (hits.reshape(rows * size, n).astype(kind) @ samples.astype(kind)).reshape(rows, size, -1)
    total = sum(per_seed[:, place] * weights for place, weights in enumerate(seeds.astype(kind)))
    return np.asarray(total, dtype=np.float64)
