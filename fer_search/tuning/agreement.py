"""Whether two measurements of the same configurations rank them alike: Kendall's tau with its uncertainty."""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

MIN_RANKED = 3
MIN_FOR_INTERVAL = 5
NORMAL_QUANTILE = 1.959964
VARIANCE = 0.437
"""Variance of artanh(tau), times n - 4 (Fieller, Hartley and Pearson 1957, https://doi.org/10.1093/biomet/44.3-4.470)."""


@dataclass(frozen=True)
class Agreement:
    """Kendall's tau-b of `num_ranked` pairs of values: 1 for the same order, -1 for the reverse.

    `p_value` is two-sided, for "the orders have nothing to do with each other", exact without ties. The 95 % interval
    is None below five pairs, where the approximation has no variance. tau is None where a side has one value only.
    """

    num_ranked: int
    tau: float | None
    p_value: float | None
    interval: tuple[float, float] | None


def rank_agreement(first: Sequence[float], second: Sequence[float]) -> Agreement | None:
    """Return how well two sequences of values of the same things agree in rank; None for fewer than three.

    The interval is that of Bonett and Wright (2000, https://doi.org/10.1007/BF02294183): tanh(artanh(tau) +- 1.96
    sqrt(0.437 / (n - 4))). Perfect agreement would have no width: it is taken half the step to the next possible tau
    lower, which leaves room for the doubt that few things leave.
    """
    num = len(first)
    if num < MIN_RANKED:
        return None
    from scipy.stats import kendalltau

    found = kendalltau(first, second)
    tau, p_value = float(found.statistic), float(found.pvalue)
    if np.isnan(tau):
        return Agreement(num, None, None, None)
    if num < MIN_FOR_INTERVAL:
        return Agreement(num, tau, p_value, None)
    half_step = 2 / (num * (num - 1))
    centre = np.arctanh(np.clip(tau, half_step - 1, 1 - half_step))
    reach = NORMAL_QUANTILE * np.sqrt(VARIANCE / (num - 4))
    low, high = float(np.tanh(centre - reach)), float(np.tanh(centre + reach))
    return Agreement(num, tau, p_value, (min(low, tau), max(high, tau)))
