"""Gaussian process regression of learning curves over (configuration, epoch, trial); it knows neither Optuna nor Ray.

The covariance of two observations of configurations x, x' at u = log(epoch), u' is

    mean * M(u, u')  +  A(x, x') * (asymptote + shape * T(u, u'))  +  [same trial] * trial * T(u, u')  +  [same] * noise

with A a Matern-5/2 kernel with one length scale per parameter, T(u, u') = exp(-|u - u'| / time) and M a wide squared
exponential. The terms are the curve that all trials share, how well a configuration ends, how its curve differs on the
way, the luck of one training, and the noise of one epoch. It is the additive form of freeze-thaw (Swersky, Snoek, Adams
2014, https://arxiv.org/abs/1406.3896) with correlations in log(epoch), so that early epochs count for the end only as
much as the data say.
"""

from dataclasses import dataclass
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from scipy.linalg import cho_solve, cholesky, lapack, solve_triangular
from scipy.optimize import fmin_l_bfgs_b

Array = NDArray[np.float64]

MEAN_WIDTH = 2.0
"""The shared curve bends over a factor of about e^2 in epochs."""
JITTER = 1e-8
SCALES = ("mean", "asymptote", "shape", "trial", "noise", "time")
PRIOR_MEDIANS = np.log([1.0, 0.5, 0.3, 0.03, 0.02, 2.0])
PRIOR_WIDTHS = np.array([1.0, 1.0, 1.0, 1.0, 1.0, 0.7])
LENGTH_WIDTH = 0.8
MAX_EVALUATIONS = 40
BOUND = 3.5
"""How many prior widths a hyperparameter may leave its median."""


class Points(NamedTuple):
    """Where curves are observed or predicted: `x` (n, columns), `epoch` (n,) from 1, `trial` (n,) whole numbers."""

    x: Array
    epoch: Array
    trial: NDArray[np.int64]

    def take(self, index: NDArray[np.int64] | slice) -> "Points":
        """Return the points at `index`."""
        return Points(self.x[index], self.epoch[index], self.trial[index])


@dataclass(frozen=True)
class Kernel:
    """The covariance; `log_scales` are the logarithms of SCALES, `log_lengths` those of the length scales (groups,).

    Column c of a configuration is measured in the length scale `groups[c]`: the columns of a one-hot encoded choice
    share one.
    """

    groups: NDArray[np.int64]
    log_scales: Array
    log_lengths: Array

    def between(self, a: Points, b: Points) -> Array:
        """Return the covariance (len(a), len(b)) of the noise-free curves."""
        mean, asymptote, shape, trial, _, time = np.exp(self.log_scales)
        apart = np.log(a.epoch)[:, None] - np.log(b.epoch)[None]
        correlation = np.exp(-np.abs(apart) / time)
        lengths = np.exp(self.log_lengths)[self.groups]
        matern = _matern(np.sqrt(_squared_distances(a.x / lengths, b.x / lengths)))
        covariance = matern * (asymptote + shape * correlation) + mean * np.exp(-0.5 * (apart / MEAN_WIDTH) ** 2)
        same = a.trial[:, None] == b.trial[None]
        covariance[same] += trial * correlation[same]
        return np.asarray(covariance)

    @property
    def variance(self) -> float:
        """The prior variance of a noise-free curve at any one point."""
        return float(np.exp(self.log_scales[:4]).sum())

    @property
    def noise(self) -> float:
        """The variance of one epoch's noise."""
        return float(np.exp(self.log_scales[4]))


def prior_kernel(groups: NDArray[np.int64]) -> Kernel:
    """Return the kernel at the medians of the log-normal priors; `groups` (columns,) numbers the length scales from 0.

    The length scales grow with the root of the number of parameters, as distances in the unit cube do (Hvarfner,
    Hellsten, Nardi 2024, https://arxiv.org/abs/2402.02229).
    """
    count = int(groups.max()) + 1
    return Kernel(groups, PRIOR_MEDIANS.copy(), np.full(count, np.log(0.4 * np.sqrt(count))))


def fit(points: Points, values: Array, groups: NDArray[np.int64]) -> Kernel:
    """Return the kernel of maximal posterior density for `values` (n,), which are near zero mean and unit variance.

    Always starts from the prior medians, so that equal data give equal hyperparameters.
    """
    prior = prior_kernel(groups)
    medians = np.concatenate([prior.log_scales, prior.log_lengths])
    widths = np.concatenate([PRIOR_WIDTHS, np.full(len(prior.log_lengths), LENGTH_WIDTH)])
    objective = Objective(points, values, groups)

    def loss(parameters: Array) -> tuple[float, Array]:
        value, gradient = objective(parameters)
        standard = (parameters - medians) / widths
        return 0.5 * float(standard @ standard) - value, standard / widths - gradient

    bounds = list(zip(medians - BOUND * widths, medians + BOUND * widths, strict=True))
    found, _, _ = fmin_l_bfgs_b(loss, medians, bounds=bounds, maxfun=MAX_EVALUATIONS, factr=1e11)
    return Kernel(groups, found[: len(SCALES)], found[len(SCALES) :])


class Objective:
    """The log marginal likelihood of `values` and its gradient, as a function of log_scales and log_lengths in a row.

    Rasmussen and Williams 2006, equations 5.8 and 5.9. What does not depend on hyperparameters is computed once.
    """

    def __init__(self, points: Points, values: Array, groups: NDArray[np.int64]) -> None:
        self.values = values
        self.apart = np.abs(np.log(points.epoch)[:, None] - np.log(points.epoch)[None])
        self.curve = np.exp(-0.5 * (self.apart / MEAN_WIDTH) ** 2)
        self.same = (points.trial[:, None] == points.trial[None]).astype(float)
        columns = [points.x[:, groups == group] for group in range(int(groups.max()) + 1)]
        self.squares = np.array([_squared_distances(part, part).ravel() for part in columns])

    def __call__(self, parameters: Array) -> tuple[float, Array]:
        """Return the log marginal likelihood and its gradient (parameters,)."""
        count = len(self.values)
        mean, asymptote, shape, trial, noise, time = np.exp(parameters[: len(SCALES)])
        inverse_squares = np.exp(-2 * parameters[len(SCALES) :])
        distance = np.sqrt(5 * (inverse_squares @ self.squares)).reshape(count, count)
        decay = np.exp(-distance)
        matern = (1 + distance + distance**2 / 3) * decay
        correlation = np.exp(-self.apart / time)
        own = self.same * correlation
        product = matern * correlation
        covariance = mean * self.curve + asymptote * matern + shape * product + trial * own
        covariance.flat[:: count + 1] += noise + JITTER
        factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        weights = cho_solve((factor, True), self.values, check_finite=False)
        likelihood = (
            -0.5 * float(self.values @ weights)
            - float(np.log(np.diag(factor)).sum())
            - 0.5 * count * float(np.log(2 * np.pi))
        )
        inverse = lapack.dpotri(factor, lower=1)[0]
        inverse = np.tril(inverse) + np.tril(inverse, -1).T
        outer = weights[:, None] * weights[None] - inverse
        mixed = outer * (asymptote + shape * correlation) * (5 / 3 * (1 + distance) * decay)
        slope = np.vdot(outer, (shape * product + trial * own) * self.apart) / time
        scales = [
            mean * np.vdot(outer, self.curve),
            asymptote * np.vdot(outer, matern),
            shape * np.vdot(outer, product),
            trial * np.vdot(outer, own),
            noise * np.trace(outer),
            slope,
        ]
        lengths = (self.squares @ mixed.ravel()) * inverse_squares
        return likelihood, 0.5 * np.concatenate([scales, lengths])


class Posterior:
    """The process given observations: `values` (n,) at `points`, with the noise of `kernel`."""

    def __init__(self, kernel: Kernel, points: Points, values: Array) -> None:
        self.kernel, self.points, self.values = kernel, points, values
        covariance = kernel.between(points, points)
        covariance.flat[:: len(values) + 1] += kernel.noise + JITTER
        self._factor = cholesky(covariance, lower=True, overwrite_a=True, check_finite=False)
        self._weights = cho_solve((self._factor, True), values, check_finite=False)

    def mean(self, points: Points) -> Array:
        """Return the mean (n,) of the noise-free curves at `points`."""
        return np.asarray(self.kernel.between(points, self.points) @ self._weights)

    def moments(self, points: Points) -> tuple[Array, Array]:
        """Return the mean and the standard deviation (n,), (n,) of the noise-free curves at `points`."""
        cross = self.kernel.between(points, self.points)
        half = solve_triangular(self._factor, cross.T, lower=True, check_finite=False)
        variance = self.kernel.variance - np.einsum("ij,ij->j", half, half)
        return np.asarray(cross @ self._weights), np.sqrt(np.maximum(variance, 1e-12))

    def believing(self, points: Points) -> "Posterior":
        """Return the process as if its mean at `points` had been observed (kriging believer, Ginsbourger 2010)."""
        if not len(points.epoch):
            return self
        together = Points(*(np.concatenate(pair) for pair in zip(self.points, points, strict=True)))
        return Posterior(self.kernel, together, np.concatenate([self.values, self.mean(points)]))


def _squared_distances(a: Array, b: Array) -> Array:
    """Return the squared distances (len(a), len(b)) of rows."""
    squares = (a**2).sum(1)[:, None] + (b**2).sum(1)[None] - 2 * a @ b.T
    return np.asarray(np.maximum(squares, 0.0))


def _matern(distance: Array) -> Array:
    scaled = np.sqrt(5.0) * distance
    return np.asarray((1 + scaled + scaled**2 / 3) * np.exp(-scaled))
