"""What accuracy a longer training, or more images, would bring: a power law through a few finished trainings.

Errors fall with training size as a - b * x^-c over wide ranges (Hestness et al. 2017,
https://arxiv.org/abs/1712.00409). Few points say little about the ceiling a, so the same law without an irreducible
error, a = 1, is fitted too: between the two lies most of what a fit of either alone would hide (how to weigh them:
Burnham and Anderson 2002). fer_search's own curve model predicts configurations within the lengths it has seen, and is
no help beyond them.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
NUM_RESAMPLES = 300
LOW, HIGH = 2.5, 97.5
POWERS = np.geomspace(0.02, 3.0, 120)
"""What the power of a law is chosen from; for each, the best ceiling and gap are found by linear least squares."""


@dataclass(frozen=True)
class Extrapolation:
    """The accuracy expected at `size`, as a share, with its 95 % interval."""

    size: float
    value: float
    low: float
    high: float


def extrapolate(
    sizes: Sequence[float],
    accuracies: Sequence[float],
    *,
    num_images: int,
    seed_deviation: float,
    at: Sequence[float],
    seed: int = 0,
) -> list[Extrapolation]:
    """Return what the accuracies (n,) of trainings of different sizes, in epochs or images, say of other sizes.

    Each was measured on the same `num_images`, and moves by `seed_deviation` from seed to seed. The interval is that
    of a parametric bootstrap over images and seeds: in each resample both laws are fitted, and one is drawn by its
    likelihood; a new training's own seed and images come on top. What no such law can follow is not in it: where the
    truth was a logarithm, 83 of 100 intervals held it at two and a half times the largest size
    (tests/test_extrapolation.py). Raises ValueError for fewer than three sizes.
    """
    if len(set(sizes)) < 3:
        raise ValueError(f"sizes: must be at least three different ones, got {sorted(set(sizes))}")
    rng = np.random.default_rng(seed)
    x, seen, targets = np.asarray(sizes, float), np.asarray(accuracies, float), np.asarray(at, float)
    unit = x.min()  # so that the laws' parameters are of a size that a fit begins well with

    def deviation(of: Array) -> Array:
        return np.sqrt(of * (1 - of) / num_images + seed_deviation**2)

    resampled = seen + deviation(seen) * rng.normal(size=(NUM_RESAMPLES, len(x)))
    by_law, scores = zip(
        *(_fitted(x / unit, resampled, deviation(seen), targets / unit, ceiling=law) for law in (None, 1.0)),
        strict=True,
    )
    # With three points the larger law always fits: the penalty of Akaike's criterion for its further parameter is what
    # keeps the smaller one in play.
    chance_of_first = 1 / (1 + np.exp(scores[1] - scores[0] + 1))
    found = np.where((rng.random(NUM_RESAMPLES) < chance_of_first)[:, None], *by_law)
    middle = np.median(found, axis=0)
    noisy = found + deviation(np.clip(middle, 0, 1)) * rng.normal(size=found.shape)
    low, high = np.percentile(np.clip(noisy, 0, 1), (LOW, HIGH), axis=0)
    return [Extrapolation(*map(float, each)) for each in zip(at, middle, low, high, strict=True)]


def with_ceiling(x: Array, ceiling: float, gap: float, power: float) -> Array:
    """Return the law that ends at `ceiling`."""
    return np.asarray(ceiling - gap * x**-power)


def _fitted(x: Array, seen: Array, deviation: Array, targets: Array, *, ceiling: float | None) -> tuple[Array, Array]:
    """Return the accuracies (R, targets) by the law that fits each row (R, n) best, and its log likelihood (R,).

    Without a given `ceiling` one is fitted, which may lie above 1: so the law can follow a logarithm, its limit where
    the power is small.
    """
    weights = deviation**-2
    best = np.full(len(seen), -np.inf)
    values = np.zeros((len(seen), len(targets)))
    level = np.average(seen, weights=weights, axis=1)
    for power in POWERS:
        falling = x**-power
        if ceiling is None:
            apart = falling - np.average(falling, weights=weights)
            gap = np.maximum(-((seen - level[:, None]) @ (weights * apart)) / (weights @ apart**2), 0)
            top = level + gap * (falling - apart)[0]
        else:
            gap = (ceiling - seen) @ (weights * falling) / (weights @ falling**2)
            top = np.full(len(seen), ceiling)
        likelihood = -((top[:, None] - gap[:, None] * falling - seen) ** 2 @ weights) / 2
        better = likelihood > best
        best = np.where(better, likelihood, best)
        values = np.where(better[:, None], top[:, None] - gap[:, None] * targets**-power, values)
    return values, best
