"""What configurations cost: measured once for each network, and predicted for the many that a searcher considers."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np
from scipy.linalg import cho_solve, cholesky

from fer_search.journal import TrialRecord
from fer_search.tuning.encoding import Encoding
from fer_search.tuning.gaussian_process import Array

Measure = Callable[[Mapping[str, Any]], float]
"""Returns the cost of a complete parameter set, above 0; it may take long, and need not give the same value twice."""

MAX_KNOWN = 300
DECAY = 0.5
NUGGET = 1e-5
"""Share of the variance that a cost may be off: a measured latency is."""


def cost_of(
    parameters: Mapping[str, Any], trials: Iterable[TrialRecord], *, fields: Collection[str], measure: Measure
) -> float:
    """Return the recorded cost of a trial that is equal in the `fields` that decide it, or else measure it."""
    for trial in trials:
        if trial.cost is not None and all(trial.parameters[field] == parameters[field] for field in fields):
            return trial.cost
    cost = float(measure(parameters))
    assert 0 < cost < float("inf"), cost
    return cost


@dataclass(frozen=True)
class LogCosts:
    """The logarithms `known` (n,) of the trials' costs, and an interpolation of them.

    It is a Gaussian process over the parameters that decide the cost, with the kernel prod_j (1 + exp(-DECAY d_j^2)),
    d_j being the distance in parameter j: main effects and interactions of all orders, the low ones weighing most
    (ANOVA kernel, Durrande et al. 2013, https://arxiv.org/abs/1106.3571). Nothing is fitted but the scale.
    """

    known: Array
    _parts: tuple[Any, ...]  # the columns of each deciding parameter
    _sites: Array
    _mean: float
    _weights: Array

    @classmethod
    def learned(cls, costs: Sequence[float], columns: Array, encoding: Encoding, *, names: Collection[str]) -> Self:
        """Learn from trials with these costs (n,), above 0, and `columns` (n, ·); `names` decide the cost."""
        known = np.log(costs)
        deciding = [number for number, name in enumerate(encoding.space) if name in names]
        parts = tuple(np.flatnonzero(encoding.groups == number) for number in deciding)
        _, first = np.unique(columns[:, np.isin(encoding.groups, deciding)], axis=0, return_index=True)
        first = np.sort(first)[-MAX_KNOWN:]  # of equal networks one says all
        sites, seen = columns[first], known[first]
        covariance = _covariance(sites, sites, parts)
        covariance.flat[:: len(first) + 1] += NUGGET
        weights = cho_solve((cholesky(covariance, lower=True), True), seen - seen.mean())
        return cls(known, parts, sites, float(seen.mean()), weights)

    def predict(self, columns: Array) -> Array:
        """Return the logarithm of the cost (m,) expected at `columns` (m, ·)."""
        return np.asarray(self._mean + _covariance(columns, self._sites, self._parts) @ self._weights)


def _covariance(a: Array, b: Array, parts: tuple[Any, ...]) -> Array:
    found = np.ones((len(a), len(b)))
    for part in parts:
        squares = ((a[:, None, part] - b[None, :, part]) ** 2).sum(2)
        found *= (1 + np.exp(-DECAY * squares)) / 2  # 1 for equals
    return np.asarray(found)
