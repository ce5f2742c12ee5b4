"""Which try of each method is the best: one rule for all of them, over the tries that all of them finished."""

import json
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Mapping
from dataclasses import dataclass
from typing import Any

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

    @property
    def default(self) -> float | None:
        """The score of the recipe as it stands; None where that was not measured."""
        return self.scores.get(0)


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
