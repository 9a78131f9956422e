"""How well an early epoch ranks configurations as their last one does: what a rung of successive halving rests on.

Nothing here knows trainings, spaces or files: a curve is an array, and larger values are better.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from math import comb

import numpy as np
from numpy.typing import ArrayLike, NDArray

Array = NDArray[np.float64]

NUM_RESAMPLES = 2_000


@dataclass(frozen=True)
class Agreement:
    """How one way of judging, a `schedule` and a `metric`, at one `epoch` agrees with the results at the end.

    `tau` is Kendall's tau-b (1: the same order, 0: none in common) with its 95 % interval by the percentile bootstrap
    over configurations; `resamples` are its values, in the same resamples for every way and epoch. `keeps_best` is as
    `chance_to_keep_best` says.
    """

    schedule: str
    metric: str
    epoch: int
    tau: float
    low: float
    high: float
    keeps_best: float
    resamples: Array = field(repr=False, compare=False)


def rank_agreements(
    curves: Mapping[tuple[str, str], ArrayLike], results: ArrayLike, *, eta: int, seed: int = 0
) -> list[Agreement]:
    """Return the agreement of each epoch of each way, by `(schedule, metric)`, with the `results` (configurations,).

    A curve is (configurations, epochs); NaN, where a training had diverged, is worse than any number.
    """
    truth = _sound(results)
    rng = np.random.default_rng(seed)
    weights = rng.multinomial(len(truth), np.full(len(truth), 1 / len(truth)), size=NUM_RESAMPLES).astype(float)
    found = []
    for (schedule, metric), curve in curves.items():
        for epoch, values in enumerate(_sound(curve).T, start=1):
            resamples = kendall_tau(values, truth, weights)
            low, high = np.percentile(resamples, (2.5, 97.5))
            tau = float(kendall_tau(values, truth, np.ones((1, len(truth))))[0])
            keeps = chance_to_keep_best(values, truth, eta=eta)
            found.append(Agreement(schedule, metric, epoch, tau, float(low), float(high), keeps, resamples))
    return found


def kendall_tau(first: ArrayLike, second: ArrayLike, weights: Array) -> Array:
    """Return Kendall's tau-b (resamples,) of two scores (n,), each taken as often as `weights` (resamples, n) say.

    Where a resample leaves only ties in one of the two there is no order, and so none in common: 0.
    """
    one, two = (np.sign(np.subtract.outer(_ranks(values), _ranks(values))) for values in (first, second))

    def total(pairs: Array) -> Array:
        return np.asarray(((weights @ pairs) * weights).sum(1))

    scale = np.sqrt(total(one**2) * total(two**2))
    return np.divide(total(one * two), scale, out=np.zeros(len(weights)), where=scale > 0)


def chance_to_keep_best(early: ArrayLike, results: ArrayLike, *, eta: int) -> float:
    """Return how often the best of a half of the configurations is among that half's first 1/eta at the early epoch.

    All halves count alike, none is drawn: whoever is the best of a half has only worse ones beside it, of which at
    least so many must be worse at the early epoch too. Of equal values, the older configuration is the better.
    """
    early, results = np.asarray(early, dtype=float), np.asarray(results, dtype=float)
    size = (len(results) + 1) // 2
    kept = max(1, size // eta)
    place = _places(early)
    order = np.argsort(_places(results))
    favourable = 0
    for index, best in enumerate(order):
        worse = order[index + 1 :]
        ahead = int((place[worse] < place[best]).sum())
        behind = len(worse) - ahead
        favourable += sum(comb(ahead, k) * comb(behind, size - 1 - k) for k in range(min(kept, size)))
    return favourable / comb(len(results), size)


def difference(better: Agreement, other: Agreement) -> tuple[float, float, float]:
    """Return how much larger the first tau is, with its 95 % interval by the bootstrap over the same configurations."""
    low, high = np.percentile(better.resamples - other.resamples, (2.5, 97.5))
    return better.tau - other.tau, float(low), float(high)


def cheapest(agreements: Sequence[Agreement]) -> Agreement | None:
    """Return the earliest agreement within one standard error of the best, of one epoch's the largest.

    It is the rule by which Breiman et al. (1984) choose the simplest of models. "Not significantly worse" would let
    nearly everything pass, as few configurations leave wide intervals. An agreement whose interval holds 0 may be
    chance and does not count; None where that is so for all.
    """
    best = strongest(agreements)
    enough = best.tau - float(best.resamples.std())
    sound = [each for each in agreements if each.low > 0 and each.tau >= enough]
    return min(sound, key=lambda each: (each.epoch, -each.tau), default=None)


def strongest(agreements: Sequence[Agreement]) -> Agreement:
    """Return the agreement with the largest tau, of equal ones the earliest."""
    return max(agreements, key=lambda each: (each.tau, -each.epoch))


def _sound(values: ArrayLike) -> Array:
    found = np.asarray(values, dtype=float)
    return np.where(np.isnan(found), -np.inf, found)


def _ranks(values: ArrayLike) -> Array:
    """Return whole numbers in the order of the values; infinite ones have no differences."""
    return np.unique(np.asarray(values, dtype=float), return_inverse=True)[1].astype(float)


def _places(values: Array) -> NDArray[np.intp]:
    """Return the place of each value, the largest first, and of equal ones the one that stands before the other."""
    places = np.empty(len(values), dtype=np.intp)
    places[np.argsort(-values, kind="stable")] = np.arange(len(values))
    return places
