"""The best of k tries as a curve over k: Dodge et al., Show Your Work, EMNLP 2019, section 3.

With n scores of tries drawn independently, the best of k draws from their empirical distribution F has

    E[max_k] = sum_v v (F(v)^k - F(v-)^k),   v over the different scores, F(v-) the share of those below v.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

COVERED = 0.9  # of the distribution of the best of k tries, by its interval


@dataclass(frozen=True)
class Best:
    """The best of `k` tries: its expectation, and the interval that holds 90 % of its distribution."""

    k: int
    expected: float
    low: float
    high: float


def expected_best(scores: Sequence[float], k: int) -> Best:
    """What the best of `k` tries is worth, given the scores of all tries that were made; raises ValueError for none."""
    if k < 1 or not len(scores):
        raise ValueError("the best of no tries has no value")
    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    below_or_at = (np.cumsum(counts) / len(scores)) ** k
    chances = np.diff(below_or_at, prepend=0.0)
    tail = (1 - COVERED) / 2
    low, high = (values[np.searchsorted(below_or_at, share - 1e-12)] for share in (tail, 1 - tail))
    return Best(k, float(values @ chances), float(low), float(high))
