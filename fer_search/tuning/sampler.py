"""Suggest configurations from all epochs of all trials: expected improvement at the horizon of a model of the curves.

One Gaussian process over configuration and epoch, as in MOBSTER (Klein et al. 2020, https://arxiv.org/abs/2003.10865),
so a single epoch of many trials already says where good final values may lie, and long trainings say how far a first
epoch can be trusted. Everything is recomputed from the study: nothing has to be saved to go on after a restart.
"""

import math
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import numpy as np
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.study import Study
from optuna.trial import FrozenTrial
from scipy.special import ndtr
from scipy.stats import qmc

from fer_search.tuning.cost_model import LogCosts
from fer_search.tuning.encoding import Encoding
from fer_search.tuning.gaussian_process import Array, Kernel, Points, Posterior, fit
from fer_search.tuning.observations import Indices, Observations, Observer
from fer_search.tuning.pareto import Front, pareto_order
from fer_search.tuning.space import Prior

COST = "cost"
"""The user attribute of what a trial costs, above 0, where a low cost is looked for too."""

RANDOM_EVERY = 4
"""Every fourth proposal is not the model's: mostly that costs a first rung, and it finds what the model is blind to."""
MAX_POINTS = 300
MAX_PENDING = 200
"""Of more trials that run at once, the last to start are those that nothing is known of yet."""
FIT_POINTS = 150
REFIT_GROWTH = 1.25
NUM_RANDOM, NUM_PARENTS, NUM_CHILDREN = 200, 5, 20
SEARCH_WIDTHS = (0.15, 0.1, 0.03)


class CurveSampler(BaseSampler):
    """Proposes for trial n what is a pure function of (seed, n, the study's trials); the study must be maximised.

    A trial counts by its intermediate values {epoch: value}, at `levels` (where trials are compared) and at its last
    epoch. A diverged trial counts as the worst value seen, at the horizon; one that runs, or that has not reported yet,
    as what the model expects of it. Values must be finite. Where `priors` say that good values are expected, by
    parameter as in `Dimension.prior`, are the trials that are not the model's and half of the candidates that are.
    Where `cost_parameters` decide what a trial costs, all trials must say it, and the Pareto front is looked for.
    """

    def __init__(
        self,
        *,
        seed: int,
        levels: Sequence[int],
        priors: Mapping[str, Prior | tuple[float, ...]] | None = None,
        cost_parameters: Collection[str] = (),
    ) -> None:
        self.cost_parameters = cost_parameters
        self.seed, self.levels, self.priors = seed, tuple(sorted(levels)), priors or {}
        self.horizon = self.levels[-1]
        # What is known of past trials, and the last fit by its data: both save time, and no result depends on them.
        self._observer = Observer(self.levels)
        self._kernels: dict[bytes, Kernel] = {}

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return every parameter that a trial has had so far, also those that only some trials have."""
        return self._observer.space(_before(study, trial))

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, Any]:
        """Propose a configuration: a Sobol point at first and for every fourth trial, else the model's choice."""
        if not search_space:
            return {}
        before = _before(study, trial)
        encoding, data = self._observer.observe(before, search_space)
        if trial.number % RANDOM_EVERY == 0 or not data.suffices(encoding):
            sequence = qmc.Sobol(encoding.num_parameters, seed=np.random.default_rng(self.seed))
            if trial.number:
                sequence.fast_forward(trial.number)
            return encoding.decode(encoding.drawn(sequence.random(1), self.priors)[0])
        costs = None
        if self.cost_parameters:
            known = [each.user_attrs[COST] for each in before]
            costs = LogCosts.learned(known, data.columns, encoding, names=self.cost_parameters)
        return encoding.decode(self._propose(data, encoding, np.random.default_rng([self.seed, trial.number]), costs))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> Any:
        """Draw a parameter that no trial before has had."""
        rng = np.random.default_rng([self.seed, trial.number, *param_name.encode()])
        encoding = Encoding({param_name: param_distribution})
        return encoding.decode(encoding.drawn(rng.random((1, 1)), self.priors)[0])[param_name]

    def _model(self, data: Observations, encoding: Encoding) -> Posterior:
        kept = data.thinned(MAX_POINTS, upto=len(data.columns))
        return Posterior(self._kernel(data, encoding), data.points.take(kept), warp(data.values[kept]))

    def _kernel(self, data: Observations, encoding: Encoding) -> Kernel:
        # The fit sees only the oldest trials, in numbers that grow by a quarter, so that it seldom has to be repeated
        # and yet follows from the present data alone.
        rows = np.unique(data.points.trial)
        steps = math.floor(math.log(len(rows), REFIT_GROWTH) + 1e-9)
        chosen = data.thinned(FIT_POINTS, upto=int(rows[int(REFIT_GROWTH**steps) - 1]) + 1)
        key = data.digest(chosen) + encoding.groups.tobytes()
        if key not in self._kernels:
            fitted = fit(data.points.take(chosen), warp(data.values[chosen]), encoding.groups)
            self._kernels = {key: fitted}
        return self._kernels[key]

    def _at_horizon(self, columns: Array, rows: Indices | None = None) -> Points:
        new = np.full(len(columns), -1)
        return Points(columns, np.full(len(columns), float(self.horizon)), new if rows is None else rows)

    def _propose(
        self, data: Observations, encoding: Encoding, rng: np.random.Generator, costs: LogCosts | None = None
    ) -> Array:
        """Return the point (num_parameters,) of the unit cube with the largest expected improvement.

        With costs it is that of the area under the front of what was observed and is believed.
        """
        posterior = self._model(data, encoding)
        rows = np.unique(posterior.points.trial)
        means = posterior.mean(self._at_horizon(data.columns[rows]))
        order = np.argsort(-means, kind="stable") if costs is None else pareto_order(means, costs.known[rows])
        parents = data.units[rows[order[:NUM_PARENTS]]]
        bar = float(means.max())
        running = data.pending[-MAX_PENDING:]
        if costs is not None:
            expected = posterior.mean(self._at_horizon(data.columns[running], running))
            front = Front.of(np.concatenate([means, expected]), costs.known[np.concatenate([rows, running])])
        posterior = posterior.believing(self._at_horizon(data.columns[running], running))
        candidates = rng.random((NUM_RANDOM, encoding.num_parameters))
        candidates[::2] = encoding.drawn(candidates[::2], self.priors)
        for width in SEARCH_WIDTHS:
            candidates = np.concatenate([candidates, _children(parents, width, encoding, rng)])
            columns = encoding.columns(candidates)
            mean, std = posterior.moments(self._at_horizon(columns))
            if costs is None:
                gains = expected_improvement(mean, std, bar)
            else:
                steps = expected_improvement(mean[:, None], std[:, None], front.bars)
                gains = (front.widths(costs.predict(columns)) * steps).sum(1)
            parents = candidates = candidates[np.argsort(-gains, kind="stable")[:NUM_PARENTS]]
        return np.asarray(candidates[0])


def warp(values: Array) -> Array:
    """Return `values` (n,) as minus the logarithm of their distance to the best, standardised.

    It squashes the failures at the lower end, which would otherwise set the scale, and evens out curves that approach
    their limit. The distance is counted in units of the median's.
    """
    best = values.max()
    unit = max(float(best - np.median(values)), 1e-12)
    warped = -np.log1p((best - values) / unit)
    return np.asarray((warped - warped.mean()) / max(float(warped.std()), 1e-12))


def expected_improvement(mean: Array, std: Array, bar: float | Array) -> Array:
    """Return E[max(0, y - bar)] (n,) for y normal with `mean` and `std` (n,) (Mockus 1975; Jones et al. 1998)."""
    z = (mean - bar) / std
    return np.asarray(std * (z * ndtr(z) + np.exp(-0.5 * z * z) / math.sqrt(2 * math.pi)))


def _children(parents: Array, width: float, encoding: Encoding, rng: np.random.Generator) -> Array:
    """Return NUM_CHILDREN variations (·, num_parameters) of each parent, of all or of some of its parameters."""
    copies = np.repeat(parents, NUM_CHILDREN, axis=0)
    scale = width * np.exp(rng.uniform(-1, 1, (len(copies), 1)))
    moved = np.clip(copies + scale * rng.standard_normal(copies.shape), 0, 1)
    drawn = np.where(rng.random(copies.shape) < 0.5, rng.random(copies.shape), copies)
    changed = rng.random(copies.shape) < rng.choice([0.4, 1.0], size=(len(copies), 1))
    return np.where(changed, np.where(encoding.is_choice, drawn, moved), copies)


def _before(study: Study, trial: FrozenTrial) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False)[: trial.number]
