"""Parameters as points of the unit cube, and as the columns that a kernel measures distances in."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from fer_search.tuning.gaussian_process import Array
from fer_search.tuning.space import Prior


class Encoding:
    """The parameters of `space` as numbers.

    A point holds a number in [0, 1] per parameter, equal shares of which belong to equal shares of the domain. A column
    is such a number, rounded to a value that the domain has; a categorical parameter has one column per choice.
    """

    def __init__(self, space: Mapping[str, BaseDistribution]) -> None:
        self.space = dict(space)
        self.num_parameters = len(self.space)
        self.is_choice = np.array([isinstance(each, CategoricalDistribution) for each in self.space.values()])
        widths = [len(each.choices) if isinstance(each, CategoricalDistribution) else 1 for each in self.space.values()]
        self.groups: NDArray[np.int64] = np.repeat(np.arange(self.num_parameters), widths)

    def units(self, parameters: Sequence[Mapping[str, Any]]) -> Array:
        """Return the points (len(parameters), num_parameters); a parameter that is absent counts as the middle."""
        points = np.full((len(parameters), self.num_parameters), 0.5)
        for column, (name, distribution) in enumerate(self.space.items()):
            rows = [row for row, each in enumerate(parameters) if name in each]
            values = np.array([distribution.to_internal_repr(parameters[row][name]) for row in rows])
            points[rows, column] = to_unit(distribution, values)
        return np.asarray(np.clip(points, 0, 1))

    def columns(self, points: Array) -> Array:
        """Return the columns (len(points), len(groups)) of `points` (n, num_parameters)."""
        parts = []
        for unit, distribution in zip(points.T, self.space.values(), strict=True):
            values = _from_unit(distribution, unit)
            if isinstance(distribution, CategoricalDistribution):
                # Two choices are at distance 1, as the two ends of a range are.
                parts.append(np.eye(len(distribution.choices))[values.astype(int)] / math.sqrt(2))
            else:
                parts.append(to_unit(distribution, values)[:, None])
        return np.concatenate(parts, axis=1)

    def drawn(self, uniform: Array, priors: Mapping[str, Prior | tuple[float, ...]]) -> Array:
        """Return points (n, num_parameters) that are drawn from `priors`, by parameter, where `uniform` points are not.

        Each number is taken as a quantile, so that points which cover the cube evenly still do so after it.
        """
        from scipy.stats import truncnorm  # a second to load, which reading a space need not take

        points = uniform.copy()
        for column, (name, distribution) in enumerate(self.space.items()):
            prior = priors.get(name)
            if isinstance(prior, Prior):
                mean, deviation = prior.mean, prior.deviation
                ends = -mean / deviation, (1 - mean) / deviation
                points[:, column] = truncnorm.ppf(uniform[:, column], *ends, loc=mean, scale=deviation)
            elif prior is not None:
                assert isinstance(distribution, CategoricalDistribution)
                chosen = np.searchsorted(np.cumsum(prior)[:-1], uniform[:, column], side="right")
                points[:, column] = (chosen + 0.5) / len(distribution.choices)
        return points

    def decode(self, point: Array) -> dict[str, Any]:
        """Return the parameters at one `point` (num_parameters,)."""
        return {
            name: distribution.to_external_repr(float(_from_unit(distribution, unit[None])[0]))
            for unit, (name, distribution) in zip(point, self.space.items(), strict=True)
        }


def _ends(distribution: BaseDistribution) -> tuple[float, float, bool]:
    """Return both ends of what maps to the unit interval, and whether on a log scale; half a step beyond each value."""
    if isinstance(distribution, CategoricalDistribution):
        return -0.5, len(distribution.choices) - 0.5, False
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    half = (distribution.step or 0) / 2
    return distribution.low - half, distribution.high + half, distribution.log


def to_unit(distribution: BaseDistribution, values: Array | float) -> Array:
    """Map internal representations to the unit interval, on the log scale where the domain is on one.

    Each value of a domain with steps has an equal share of it, as Optuna's samplers give them.
    """
    low, high, log = _ends(distribution)
    if log:
        low, high, values = math.log(low), math.log(high), np.log(values)
    return np.asarray((values - low) / (high - low))


def _from_unit(distribution: BaseDistribution, unit: Array) -> Array:
    """Return the internal representations (n,) of values that the domain has."""
    low, high, log = _ends(distribution)
    values = np.exp(math.log(low) + unit * (math.log(high) - math.log(low))) if log else low + unit * (high - low)
    if isinstance(distribution, CategoricalDistribution):
        return np.asarray(np.clip(np.round(values), 0, len(distribution.choices) - 1))
    assert isinstance(distribution, FloatDistribution | IntDistribution)
    if distribution.step is not None:
        values = distribution.low + distribution.step * np.round((values - distribution.low) / distribution.step)
    return np.asarray(np.clip(values, distribution.low, distribution.high))
