import numpy as np
import pytest

from fer_search.tuning.agreement import rank_agreement


def test_tau_counts_concordant_and_discordant_pairs():
    # Of the six pairs only the one of the second and the third is out of order.
    found = rank_agreement([0.1, 0.2, 0.3, 0.4], [1, 3, 2, 4])
    assert found.tau == pytest.approx((5 - 1) / 6)
    assert found.p_value == pytest.approx(8 / 24)  # the orders of four with at most one or at least five inversions
    assert found.interval is None


def test_fewer_than_three_have_no_agreement_and_equal_values_no_tau():
    assert rank_agreement([1, 2], [1, 2]) is None
    assert rank_agreement([1, 2, 3], [5, 5, 5]).tau is None


@pytest.mark.parametrize("num", [8, 20])
@pytest.mark.parametrize("correlation", [0.0, 0.7])
def test_the_interval_covers_the_true_tau_about_as_often_as_it_says(num, correlation):
    rng = np.random.default_rng(0)
    true_tau = 2 / np.pi * np.arcsin(correlation)  # of a bivariate normal distribution
    covered = 0
    for _ in range(400):
        first = rng.normal(size=num)
        second = correlation * first + np.sqrt(1 - correlation**2) * rng.normal(size=num)
        low, high = rank_agreement(first, second).interval
        covered += low <= true_tau <= high
    assert 0.92 <= covered / 400 <= 0.99


@pytest.mark.parametrize("sign", [1, -1])
def test_five_in_perfect_agreement_leave_room_for_doubt(sign):
    found = rank_agreement(range(5), [sign * value for value in range(5)])
    low, high = sorted(abs(end) for end in found.interval)
    assert found.tau == pytest.approx(sign)
    assert high == pytest.approx(1)
    # The exact test's p-value is 2 / 120, so 0 is outside, and not by much.
    assert 0 < low < 0.3
    assert found.p_value == pytest.approx(2 / 120)
