"""Extrapolated learning curves, on curves whose law is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from extrapolation import extrapolate, with_ceiling

SIZES = np.array([5, 10, 20, 40, 80])


def test_a_curve_without_noise_is_continued():
    accuracies = with_ceiling(SIZES / 5, 0.72, 0.25, 0.7)
    (found,) = extrapolate(SIZES, accuracies, num_images=10**9, seed_deviation=1e-5, at=[300])
    assert found.value == pytest.approx(with_ceiling(np.array([60.0]), 0.72, 0.25, 0.7)[0], abs=0.003)
    assert found.high - found.low < 0.01


@pytest.mark.parametrize(
    ("law", "least"),
    [
        (lambda x: with_ceiling(x, 0.70, 0.30, 0.8), 0.85),
        (lambda x: with_ceiling(x, 0.78, 0.35, 0.4), 0.85),
        (lambda x: with_ceiling(x, 1.0, 0.55, 0.15), 0.85),
        (lambda x: 0.45 + 0.06 * np.log(x), 0.75),  # of another form: that error is not all in the interval
    ],
    ids=["early ceiling", "late ceiling", "no ceiling", "logarithm"],
)
def test_the_interval_covers_what_a_longer_training_reaches(law, least):
    rng, covered, widths = np.random.default_rng(0), [], []
    num_images, deviation, target = 3589, 0.004, 200.0

    def measured(size):
        return rng.binomial(num_images, law(size / 5) + rng.normal(0, deviation)) / num_images

    for repetition in range(40):
        accuracies = [measured(size) for size in SIZES]
        (found,) = extrapolate(
            SIZES, accuracies, num_images=num_images, seed_deviation=deviation, at=[target], seed=repetition
        )
        covered.append(found.low <= measured(target) <= found.high)
        widths.append(found.high - found.low)
    assert np.mean(covered) >= least
    assert np.median(widths) < 0.1  # and it says something


def test_further_away_less_is_known_and_two_sizes_are_not_enough():
    accuracies = with_ceiling(SIZES / 5, 0.72, 0.25, 0.5)
    near, far = extrapolate(SIZES, accuracies, num_images=3589, seed_deviation=0.004, at=[100, 2000])
    assert far.high - far.low > near.high - near.low
    with pytest.raises(ValueError, match="at least three different ones, got \\[5, 10\\]"):
        extrapolate([5, 10, 10], [0.5, 0.6, 0.61], num_images=100, seed_deviation=0.0, at=[20])
