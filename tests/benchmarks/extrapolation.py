"""What accuracy a longer training, or more images, would bring: a power law through a few finished trainings.

Errors fall with training size as a - b * x^-c over wide ranges (Hestness et al. 2017,
https://arxiv.org/abs/1712.00409). Few points say little about the ceiling a, so the same law without an irreducible
error, a = 1, is fitted too: between the two lies most of what a fit of either alone would hide (how to weigh them:
Burnham and Anderson 2002). fer_search's own curve model predicts configurations within the lengths it has seen, and is
no help beyond them.

    python tests/benchmarks/extrapolation.py RUN RUN RUN... --at 30 100 300

continues trainings of one recipe that differ in their epochs, or in how many images they were fitted to.
"""

import argparse
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from fer_search.runs import RESULT, read_json

Array = NDArray[np.float64]
NUM_RESAMPLES = 300
LOW, HIGH = 2.5, 97.5
SMALLEST_DEVIATION = 0.004
"""Between seeds, where fewer than three say; a third of the noise of PublicTest's images."""
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


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="directories of finished trainings")
    parser.add_argument("--at", type=float, nargs="+", required=True, help="epochs or images to expect an accuracy of")
    arguments = parser.parse_args()
    results = [read_json(run / RESULT) for run in arguments.runs]
    by_epochs = len({result["data"]["num_fit"] for result in results}) == 1
    sizes = [result["recipe"]["epochs"] if by_epochs else result["data"]["num_fit"] for result in results]
    figures = [result["metrics"]["public"][result["prediction"]["views"]] for result in results]
    for size, each in sorted(zip(sizes, figures, strict=True), key=lambda pair: pair[0]):
        low, high = each["accuracy_low"], each["accuracy_high"]
        print(f"{size:>8,} measured {each['accuracy']:.1%} ({low:.1%} to {high:.1%})")
    found = extrapolate(
        sizes,
        [each["accuracy"] for each in figures],
        num_images=figures[0]["num_images"],
        seed_deviation=SMALLEST_DEVIATION,
        at=arguments.at,
    )
    for expected in found:
        print(f"{expected.size:>8,.0f} expected {expected.value:.1%} ({expected.low:.1%} to {expected.high:.1%})")


if __name__ == "__main__":
    main()
