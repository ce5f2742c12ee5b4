"""Which try of each method is the best, by one rule over the tries that all finished; what the best of k tries is."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np

from apd_bench.leaderboard.statistics import harmonic_mean
from apd_bench.tuning.trials import Trial

# The score of a method on a set, from clean and robust accuracy; a search takes the mean over sets (and seeds).
RULES: Mapping[str, Callable[[float, float], float]] = {
    "harmonic": harmonic_mean,
    "mean": lambda clean, robust: (clean + robust) / 2,
    "robust": lambda clean, robust: robust,
    "clean": lambda clean, robust: clean,
}
COVERED = 0.9  # of the distribution of the best of k tries, by its interval


@dataclass(frozen=True)
class Tuned:
    """A method's tries: `scores` by number of try, in percent, `best` the number of the best one (the first of equals).

    `clean` and `robust` are the mean accuracies of each try in percent, `configurations` what each set.
    """

    method: str
    scores: Mapping[int, float]
    clean: Mapping[int, float]
    robust: Mapping[int, float]
    configurations: Mapping[int, Mapping[str, Any]]

    @property
    def best(self) -> int:
        """The number of the best try."""
        return max(self.scores, key=lambda number: (self.scores[number], -number))


def tuned(trials: Iterable[Trial], methods: Collection[str], rule: str) -> list[Tuned]:
    """What each of `methods` makes of the tries that all of them finished on the same sets and seeds, by `rule`."""
    by_try: dict[str, dict[int, dict[tuple[str, int], Trial]]] = {name: defaultdict(dict) for name in methods}
    places: set[tuple[str, int]] = set()
    for trial in trials:
        if trial.method in by_try:
            by_try[trial.method][trial.trial][trial.place] = trial
            places.add(trial.place)
    finished = [{number for number, at in own.items() if at.keys() == places} for own in by_try.values()]
    common = sorted(set.intersection(*finished)) if finished else []
    return [_tuned(name, {number: own[number] for number in common}, rule) for name, own in by_try.items()]


def _tuned(method: str, tries: Mapping[int, Mapping[tuple[str, int], Trial]], rule: str) -> Tuned:
    score = RULES[rule]

    def means(value: Callable[[Trial], float]) -> dict[int, float]:
        return {number: 100 * float(np.mean([value(one) for one in at.values()])) for number, at in tries.items()}

    return Tuned(
        method=method,
        scores=means(lambda one: score(one.clean, one.robust)),
        clean=means(lambda one: one.clean),
        robust=means(lambda one: one.robust),
        configurations={number: json.loads(next(iter(at.values())).configuration) for number, at in tries.items()},
    )


class Best(NamedTuple):
    """The best of some tries: its expectation, and the interval that holds 90 % of its distribution."""

    expected: float
    low: float
    high: float


def expected_best(scores: Sequence[float], k: int) -> Best:
    """What the best of `k` tries is worth, given the scores of all tries that were made; raises ValueError for none.

    Dodge et al., Show Your Work, EMNLP 2019, section 3: with n scores of tries drawn independently, the best of k draws
    from their empirical distribution F has E[max_k] = sum_v v (F(v)^k - F(v-)^k), v over the different scores, F(v-)
    the share of those below v.
    """
    if k < 1 or not len(scores):
        raise ValueError("the best of no tries has no value")
    values, counts = np.unique(np.asarray(scores, dtype=np.float64), return_counts=True)
    below_or_at = (np.cumsum(counts) / len(scores)) ** k
    chances = np.diff(below_or_at, prepend=0.0)
    tail = (1 - COVERED) / 2
    low, high = (values[np.searchsorted(below_or_at, share - 1e-12)] for share in (tail, 1 - tail))
    return Best(float(values @ chances), float(low), float(high))
