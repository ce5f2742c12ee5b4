"""Intervals and tests agree with closed forms and with scipy on cases where these exist."""

import numpy as np
import pytest
from scipy.stats import bootstrap

from apd_bench.leaderboard import statistics


def panel(*shapes, share=0.4, key=0):
    generator = np.random.default_rng(key)
    return [generator.random(shape) < share for shape in shapes]


def test_wilson_is_the_published_example_and_stays_inside_the_unit_interval():
    estimate = statistics.wilson(81, 263)  # Newcombe 1998, table I: 0.2553 to 0.3662
    assert estimate.value == pytest.approx(81 / 263)
    assert (estimate.low, estimate.high) == (pytest.approx(0.2553, abs=1e-4), pytest.approx(0.3662, abs=1e-4))
    assert statistics.wilson(0, 20).low == 0
    assert statistics.wilson(20, 20).high == 1
    with pytest.raises(ValueError, match="no samples"):
        statistics.wilson(0, 0)


def test_means_are_over_datasets_and_methods_share_their_draws():
    small, large = np.ones((1, 1, 10), dtype=bool), np.zeros((1, 1, 990), dtype=bool)
    assert statistics.panel_means([small, large])[0] == 0.5
    one = panel((1, 3, 60), (1, 3, 30))
    both = [np.concatenate([hits, hits]) for hits in one]
    draws = statistics.resampled_means(both, 500)
    assert np.array_equal(draws[0], draws[1])


def test_one_sample_has_no_interval_and_outcomes_that_are_all_alike_have_wilsons():
    hits = [np.ones((1, 1, 1), dtype=bool)]
    estimate = statistics.estimates(hits, statistics.resampled_means(hits, 50))[0]
    assert (estimate.value, estimate.low, estimate.high) == (1.0, None, None)
    for hits in (np.zeros((1, 3, 20), dtype=bool), np.ones((1, 3, 20), dtype=bool)):
        (found,) = statistics.estimates([hits], statistics.resampled_means([hits], 99))
        assert found == statistics.wilson(int(hits[0, 0].sum()), 20)


def test_p_is_never_zero_and_one_for_equal_methods_and_harmonic_means():
    assert statistics.bootstrap_p(np.full(999, 0.1)) == pytest.approx(0.002)
    assert statistics.bootstrap_p(np.zeros(999)) == 1.0
    assert statistics.harmonic_mean(0.6, 0.3) == pytest.approx(0.4)
    assert statistics.harmonic_mean(0.6, 0.0) == 0.0


@pytest.mark.parametrize(("values", "adjusted"), [
    ([], []),
    ([0.2], [0.2]),
    ([0.01, 0.04, 0.03], [0.03, 0.06, 0.06]),  # 3 x 0.01, 2 x 0.03, and 1 x 0.04 is not below the one before
    ([0.04, 0.01, 0.04, 0.01], [0.08, 0.04, 0.08, 0.04]),
    ([0.5, 0.6], [1.0, 1.0]),
])  # fmt: skip
def test_holm_matches_hand_calculation(values, adjusted):
    assert statistics.holm(values) == pytest.approx(adjusted, abs=1e-12)


@pytest.mark.parametrize(
    ("first", "second", "p"), [(0, 0, 1.0), (0, 5, 2 / 32), (1, 3, 10 / 16), (3, 3, 1.0), (2, 10, 158 / 4096)]
)
def test_mcnemar_is_the_binomial_test_on_discordant_pairs(first, second, p):
    assert statistics.mcnemar_p(first, second) == pytest.approx(p, abs=1e-12)
    assert statistics.mcnemar_p(second, first) == pytest.approx(p, abs=1e-12)


def test_ranks_are_shared_until_a_difference_is_significant_and_never_behind_a_lower_mean():
    means = np.array([0.60, 0.59, 0.20])
    noise = np.random.default_rng(0).normal(0, 0.01, (3, 4999))
    assert statistics.rank_ranges(means, means[:, None] + noise) == [(1, 2), (1, 2), (3, 3)]
    assert statistics.rank_ranges(means[:1], means[:1, None] + noise[:1]) == [(1, 1)]
    generator = np.random.default_rng(0)
    steady, wild = generator.normal(0, 0.01, (2, 4999)), generator.normal(0, 0.2, 4999)
    means = np.array([0.60, 0.50, 0.49])  # the second is surely behind the first; of the third nobody knows
    draws = means[:, None] + np.stack([steady[0], steady[1], wild])
    assert statistics.rank_ranges(means, draws) == [(1, 2), (1, 3), (1, 3)]


def test_enough_resamples_for_holm_over_all_pairs():
    for rows in (2, 10, 20, 30):
        pairs = rows * (rows - 1) / 2
        assert pairs * 2 / (statistics.resamples_for(rows) + 1) < statistics.ALPHA


@pytest.mark.parametrize("shape", [(3, 40), (1, 40), (3, 1)])
def test_the_draws_are_those_of_scipy(shape):
    hits = panel((2, *shape), (2, shape[0], 7))
    factors = [size for part in hits for size in part.shape[1:] if size > 1]

    def statistic(*draws):
        remaining = iter(draws)
        shares = []
        for part in hits:
            seeds, samples = (next(remaining) if size > 1 else np.zeros(1, dtype=int) for size in part.shape[1:])
            shares.append(part[0][np.ix_(seeds, samples)].mean())
        return float(np.mean(shares))

    expected = bootstrap(
        [np.arange(size) for size in factors], statistic, n_resamples=50, vectorized=False, paired=False, batch=50,
        rng=np.random.default_rng(statistics.BOOTSTRAP_SEED), method="percentile",
    )  # fmt: skip
    np.testing.assert_allclose(
        statistics.resampled_means(hits, 50)[0], expected.bootstrap_distribution, rtol=0, atol=1e-12
    )
