"""How an early epoch ranks, against scipy, plain enumeration and curves made by hand."""

import itertools

import numpy as np
import pytest
from scipy import stats

from fer_search.rank_agreement import cheapest, difference, kendall_tau, rank_agreements


def noisy(truth, deviation, seed=0):
    return truth + np.random.default_rng(seed).normal(0, deviation, truth.shape)


def test_tau_is_scipys_on_every_resample_with_all_the_ties_that_resampling_makes():
    rng = np.random.default_rng(0)
    early, results = rng.integers(0, 6, 12) / 10, rng.integers(0, 9, 12) / 10
    weights = rng.multinomial(12, np.full(12, 1 / 12), size=50)
    found = kendall_tau(early, results, weights.astype(float))
    for each, counts in zip(found, weights, strict=True):
        expected = stats.kendalltau(np.repeat(early, counts), np.repeat(results, counts)).statistic
        assert each == pytest.approx(expected)


def test_without_any_order_nothing_is_in_common():
    assert kendall_tau(np.ones(5), np.arange(5), np.ones((1, 5))) == [0.0]


def test_the_interval_is_that_of_scipys_percentile_bootstrap():
    results = np.linspace(0.4, 0.6, 24)
    early = noisy(results, 0.08)
    (found,) = rank_agreements({("onecycle", "val_accuracy"): early[:, None]}, results, eta=3)
    assert found.tau == pytest.approx(stats.kendalltau(early, results).statistic)
    expected = stats.bootstrap(
        (early, results), lambda x, y: stats.kendalltau(x, y).statistic, paired=True, vectorized=False,
        method="percentile", n_resamples=1000, rng=np.random.default_rng(1),
    ).confidence_interval  # fmt: skip
    assert (found.low, found.high) == pytest.approx((expected.low, expected.high), abs=0.03)


@pytest.mark.parametrize("eta", [2, 3, 4])
def test_the_chance_to_keep_the_best_is_counted_over_all_halves(eta):
    rng = np.random.default_rng(eta)
    results, early = rng.permutation(9) / 10, rng.integers(0, 5, 9) / 10
    kept = []
    for half in itertools.combinations(range(9), 5):
        best = max(half, key=lambda n: results[n])
        first = sorted(half, key=lambda n: (-early[n], n))[: max(1, 5 // eta)]
        kept.append(best in first)
    (found,) = rank_agreements({("s", "m"): early[:, None]}, results, eta=eta)
    assert found.keeps_best == pytest.approx(np.mean(kept))


def test_a_diverged_configuration_is_the_worst_early_and_at_the_end():
    results = np.array([0.5, np.nan, 0.6, 0.7])
    curve = np.array([[0.2, 0.5], [np.nan, np.nan], [0.3, 0.6], [0.4, 0.7]])
    found = rank_agreements({("s", "m"): curve}, results, eta=3)
    assert [(each.epoch, each.tau) for each in found] == [(1, 1.0), (2, 1.0)]
    early_only = np.array([[0.2], [0.9], [0.3], [0.4]])
    (found,) = rank_agreements({("s", "m"): early_only}, results, eta=3)
    assert found.tau == pytest.approx(stats.kendalltau([1, 4, 2, 3], [2, 1, 3, 4]).statistic)


def test_a_difference_is_judged_in_pairs_and_not_by_two_intervals_that_overlap():
    results = np.linspace(0, 1, 24)
    shared = noisy(results, 0.3)
    ways = {("a", "m"): shared[:, None], ("b", "m"): noisy(shared, 0.001, 1)[:, None]}
    one, other = rank_agreements(ways, results, eta=3)
    value, low, high = difference(one, other)
    assert value == pytest.approx(one.tau - other.tau)
    assert high - low < 0.5 * (one.high - one.low)


def test_the_cheapest_is_the_earliest_epoch_within_one_standard_error_of_the_best():
    results = np.linspace(0, 1, 40)
    nothing, poor, good = np.random.default_rng(2).permutation(40), noisy(results, 0.6), noisy(results, 0.02, 5)
    ways = {
        ("onecycle", "raw"): np.stack([nothing, poor, noisy(results, 0.02, 6)], 1),
        ("annealed", "raw"): np.stack([poor, good, good], 1),
    }
    found = rank_agreements(ways, results, eta=3)
    best = max(each.tau for each in found)
    assert [round(stats.kendalltau(good, results).statistic, 6), best] != [1.0, 1.0]
    chosen = cheapest(found)
    assert chosen is not None
    assert (chosen.schedule, chosen.epoch) == ("annealed", 2)
    alone = cheapest(rank_agreements({("onecycle", "raw"): results[:, None]}, results, eta=3))
    assert alone is not None
    assert (alone.epoch, alone.tau) == (1, 1.0)


def test_that_an_interval_is_wide_does_not_make_an_epoch_good_enough():
    results = np.linspace(0, 1, 24)
    found = rank_agreements(
        {("s", "m"): np.stack([noisy(results, 0.5, 5), noisy(results, 0.25, 4)], 1)}, results, eta=3
    )
    assert difference(found[1], found[0])[1] < 0  # that the first epoch is worse is not significant
    assert cheapest(found) == found[1]


def test_an_order_that_may_be_chance_is_never_chosen():
    results = np.linspace(0, 1, 6)
    weak = np.array([0.1, 0.5, 0.2, 0.4, 0.3, 0.25])
    found = rank_agreements({("s", "m"): np.stack([weak, noisy(results, 0.1)], 1)}, results, eta=3)
    assert found[0].low <= 0 < found[1].low
    assert cheapest(found) == found[1]
    assert cheapest(found[:1]) is None
