"""Promotions worked out by hand."""

import numpy as np
import pytest

from fer_search.tuning.promotion import next_promotion, rung_levels

LEVELS = (1, 3, 9)


def test_levels_grow_by_eta_and_end_at_the_horizon():
    assert rung_levels(first=1, eta=3, horizon=50) == (1, 3, 9, 27, 50)
    assert rung_levels(first=3, eta=3, horizon=9) == (3, 9)
    assert rung_levels(first=2, eta=4, horizon=2) == (2,)


def test_nothing_is_promoted_before_eta_trials_have_reported():
    assert next_promotion({1: {0: 0.9, 1: 0.1}}, {1: {0, 1}}, levels=LEVELS, eta=3) is None


def test_the_best_third_goes_on_and_the_rest_waits():
    records = {1: {0: 0.1, 1: 0.5, 2: 0.3, 3: 0.2, 4: 0.4, 5: 0.0}}
    assert next_promotion(records, {1: {0, 1, 2, 3, 4, 5}}, levels=LEVELS, eta=3) == 1
    assert next_promotion(records, {1: {0, 2, 3, 4, 5}}, levels=LEVELS, eta=3) == 4
    assert next_promotion(records, {1: {0, 2, 3, 5}}, levels=LEVELS, eta=3) is None


def test_the_highest_level_goes_first():
    records = {1: {n: n / 10 for n in range(9)}, 3: {6: 0.6, 7: 0.7, 8: 0.8}}
    assert next_promotion(records, {1: {5}, 3: {6, 7, 8}}, levels=LEVELS, eta=3) == 8
    assert next_promotion({**records, 3: {7: 0.7, 8: 0.8}}, {1: {6}, 3: {7, 8}}, levels=LEVELS, eta=3) == 6


def test_a_trial_at_the_horizon_is_never_promoted():
    assert next_promotion({9: {0: 0.1, 1: 0.2, 2: 0.3}}, {9: {0, 1, 2}}, levels=LEVELS, eta=3) is None


def test_of_equals_the_older_one_goes_on():
    assert next_promotion({1: dict.fromkeys((4, 2, 7), 0.5)}, {1: {4, 7, 2}}, levels=LEVELS, eta=3) == 2


def test_a_trial_that_diverged_and_left_the_records_neither_goes_on_nor_counts():
    assert next_promotion({1: {1: 0.1, 2: 0.2}}, {1: {0, 1, 2}}, levels=LEVELS, eta=3) is None


@pytest.mark.parametrize("seed", range(3))
def test_it_decides_as_sorting_does(seed):
    rng = np.random.default_rng(seed)
    records = {level: {int(n): float(rng.random()) for n in rng.choice(99, 30, replace=False)} for level in (1, 3)}
    paused = {level: {number for number in records[level] if rng.random() < 0.3} for level in (1, 3)}
    expected = None
    for level in (3, 1):
        best = sorted(records[level], key=lambda n: -records[level][n])[: len(records[level]) // 3]
        expected = next((number for number in best if number in paused[level]), None)
        if expected is not None:
            break
    assert next_promotion(records, paused, levels=LEVELS, eta=3) == expected
