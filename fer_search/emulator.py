"""An emulator of recorded learning curves: what a configuration between the recorded ones would have reported.

Curves, in logits, are reduced to principal components over epochs, and a model from the configuration to the components
is fitted: a Gaussian process or extremely randomised trees, whichever predicts held-out curves better (surrogate
benchmarks: Eggensperger et al. 2015, https://doi.org/10.1609/aaai.v29i1.9375). Noise is recorded too: the residual
curve of a neighbouring configuration. Nothing here knows torch or Ray.
"""

import warnings
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy.special import expit, logit
from scipy.stats import spearmanr
from sklearn.compose import TransformedTargetRegressor
from sklearn.decomposition import PCA
from sklearn.ensemble import ExtraTreesRegressor
from sklearn.exceptions import ConvergenceWarning
from sklearn.gaussian_process import GaussianProcessRegressor
from sklearn.gaussian_process.kernels import ConstantKernel, Matern, WhiteKernel
from sklearn.metrics import r2_score
from sklearn.model_selection import KFold, cross_val_predict
from sklearn.multioutput import MultiOutputRegressor
from threadpoolctl import threadpool_limits

from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe
from fer_search.recorded_curves import RecordedCurves
from fer_search.tuning.encoding import Encoding
from fer_search.tuning.gaussian_process import Array
from fer_search.tuning.space import Point, Space
from fer_search.tuning.space_file import read_space

Bools = NDArray[np.bool_]

MIN_CURVES = 8
"""Of fewer curves to the end, not even a guess at the emulator's worth can be made."""
NUM_COMPONENTS = 3
NUM_FOLDS = 25
"""Up to so many curves, each is held out alone."""
NUM_NEIGHBOURS = 5
NUM_RANDOM = 2000
LOWEST = 1e-3
"""What a value is at least, so that its logit is finite."""


@dataclass(frozen=True)
class Quality:
    """What an emulator was made of, and how well it predicts final values of configurations that it did not see.

    `num_continued` of the `num_curves` had been stopped; `num_left_out` had no epoch. `r2` and Spearman's
    `rank_correlation` are those of held-out configurations that were trained to the end.
    """

    schedule: str
    model: str
    num_curves: int
    num_continued: int
    num_left_out: int
    r2: float
    rank_correlation: float


@dataclass(frozen=True)
class Emulator:
    """A model of the curves of a space; `best` and `median` are those of the final values of random configurations.

    `model` predicts logits of curves from encoded configurations; `columns` and `residuals` (·, horizon), in logits,
    are those of the configurations that were trained to the end.
    """

    space: Space
    quality: Quality
    best: float
    median: float
    model: Any
    columns: Array
    residuals: Array

    def curves(self, points: Sequence[Point]) -> Array:
        """Return the noise-free curves (len(points), horizon)."""
        return np.asarray(expit(self.model.predict(encoded(self.space, points))))

    def noisy_curve(self, point: Point, rng: np.random.Generator) -> tuple[Array, float]:
        """Return a curve (horizon,) as a training would report it, and its noise-free final value."""
        columns = encoded(self.space, [point])
        clean = self.model.predict(columns)[0]
        nearest = np.argsort(((self.columns - columns) ** 2).sum(1), kind="stable")[:NUM_NEIGHBOURS]
        return np.asarray(expit(clean + self.residuals[rng.choice(nearest)])), float(expit(clean[-1]))

    def regret(self, value: float) -> float:
        """Return how far a noise-free final value is from the best of many random configurations.

        In units of the distance from their median; 0 from the best on, since the model was not asked to extrapolate.
        """
        return max(0.0, (self.best - value) / (self.best - self.median))


def fit_emulator(recorded: RecordedCurves, *, source: Path, schedule: str | None = None) -> Emulator:
    """Return the emulator of the space's metric under a schedule, by default the first recorded one.

    A curve that was stopped goes on in parallel to the mean of those that came further, in logits; the model is judged
    without such curves. What had diverged has the lowest value of each epoch. Raises InvalidInput for curves that are
    not those of the space in the file, or too few.
    """
    space = recorded_space(recorded, source=source, schedule=schedule)
    schedule = schedule or next(iter(recorded.curves))
    values = recorded.curves[schedule][space.metric].copy()
    _check(recorded, space, values, source)
    complete = ~np.isin(np.arange(len(values)), recorded.stopped)
    values[complete] = np.where(np.isnan(values[complete]), np.nanmin(values, axis=0), values[complete])
    known = ~np.isnan(values[:, 0])
    values, complete = values[known], complete[known]
    points = [point for point, has_epoch in zip(recorded.points, known, strict=True) if has_epoch]
    curves, columns = _continued(logit(np.clip(values, LOWEST, 1 - LOWEST))), encoded(space, points)
    name, model, held_out = _best_model(columns, curves, complete)
    judged = curves[complete]
    finals, predicted = expit(judged[:, -1]), expit(held_out[:, -1])
    quality = Quality(
        schedule=schedule,
        model=name,
        num_curves=len(curves),
        num_continued=int((~complete).sum()),
        num_left_out=int((~known).sum()),
        r2=float(r2_score(finals, predicted)),
        rank_correlation=float(spearmanr(finals, predicted).statistic) if np.ptp(predicted) else 0.0,
    )
    residuals = _noise(judged - model.predict(columns[complete]), judged - held_out)
    random = expit(model.predict(encoded(space, _random_points(space)))[:, -1])
    best, median = float(random.max()), float(np.median(random))
    if best - median < 1e-9:
        raise InvalidInput(problem(source, space.metric, "must depend on the configuration", best))
    return Emulator(space, quality, best, median, model, columns[complete], residuals)


def recorded_space(recorded: RecordedCurves, *, source: Path, schedule: str | None = None) -> Space:
    """Return the space whose curves were recorded under a schedule, by default the first; raises InvalidInput."""
    metrics = recorded.curves.get(schedule or next(iter(recorded.curves)))
    if metrics is None:
        rule = f"must be one of the recorded: {', '.join(recorded.curves)}"
        raise InvalidInput(problem(source, "schedule", rule, schedule))
    defaults = Recipe().model_dump()
    search = {key: value for key, value in recorded.table.get("search", {}).items() if key != "cost"}
    table = {**recorded.table, "search": search}  # a replay is judged by the metric alone, so it looks for that alone
    return read_space(table, source=source, defaults=defaults, check=Recipe.problems, metrics=metrics)


def _check(recorded: RecordedCurves, space: Space, values: Array, source: Path) -> None:
    """Raise InvalidInput unless the points are the space's, and the values its metric's, of enough curves."""
    problems = []
    if values.shape[1] != space.horizon or space.horizon < NUM_COMPONENTS:
        rule = f"must be the {space.horizon} of the space, and at least {NUM_COMPONENTS}"
        problems.append(problem(source, "epochs", rule, values.shape[1]))
    rule = "must have a value for each dimension that applies"
    problems += [
        problem(source, f"points[{number}]", rule, point)
        for number, point in enumerate(recorded.points)
        if point.keys() != space.fill(point).keys()
    ]
    wrong = values[(values < 0) | (values > 1)]
    if len(wrong):
        problems.append(problem(source, space.metric, "must be from 0 to 1", float(wrong[0])))
    finals = values[~np.isnan(values[:, -1]), -1]
    if len(finals) < MIN_CURVES:
        rule = f"must be at least {MIN_CURVES} to the last epoch, for an emulator"
        problems.append(problem(source, "curves", rule, len(finals)))
    elif np.ptp(finals) == 0:
        problems.append(problem(source, space.metric, "must depend on the configuration", float(finals[0])))
    if problems:
        raise InvalidInput(problems)


def _best_model(columns: Array, curves: Array, complete: Bools) -> tuple[str, Any, Array]:
    """Return the model that best predicts the ends of held-out `complete` curves: name, fit, held-out predictions."""
    candidates = {"a Gaussian process": _gaussian_process(columns.shape[1]), "extra trees": _trees()}
    folds = KFold(min(len(curves), NUM_FOLDS), shuffle=True, random_state=0)
    # On matrices so small, threads would only wait for each other. A length scale at its bound is a parameter without
    # an effect, and no failure.
    with threadpool_limits(limits=1), warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)
        held_out = {
            name: cross_val_predict(model, columns, curves, cv=folds)[complete] for name, model in candidates.items()
        }
        finals = expit(curves[complete, -1])
        best = max(candidates, key=lambda name: r2_score(finals, expit(held_out[name][:, -1])))
        return best, candidates[best].fit(columns, curves), held_out[best]


def _continued(curves: Array) -> Array:
    """Return curves without NaN: behind its end, each has the mean gain of those that went on."""
    found = curves.copy()
    for epoch in range(1, curves.shape[1]):
        went_on = ~np.isnan(curves[:, epoch])
        gain = (curves[went_on, epoch] - curves[went_on, epoch - 1]).mean()
        found[~went_on, epoch] = found[~went_on, epoch - 1] + gain
    return found


def _noise(residuals: Array, held_out: Array) -> Array:
    """Return residual curves (n, horizon) that are as large as the noise.

    A fit's own residuals are smaller than the noise, which it has partly learned, and those of held-out curves larger,
    by the model's error. In a linear smoother with leverage h the factors are 1 - h and 1 / (1 - h) of each other's,
    so that their geometric mean is the studentised residual. What the model cannot follow counts as noise.
    """
    own, other = np.linalg.norm(residuals, axis=1), np.linalg.norm(held_out, axis=1)
    return np.asarray(residuals * np.sqrt(other / np.maximum(own, 1e-12))[:, None])


def encoded(space: Space, points: Sequence[Point]) -> Array:
    """Return the columns (len(points), ·) that a model sees of points of a space."""
    encoding = Encoding(space.domains)
    return encoding.columns(encoding.units(points))


def _random_points(space: Space) -> list[Point]:
    """Return points that are drawn evenly from the space."""
    encoding = Encoding(space.domains)
    drawn = np.random.default_rng(0).random((NUM_RANDOM, encoding.num_parameters))
    return [space.fill(encoding.decode(unit)) for unit in drawn]


def _gaussian_process(num_columns: int) -> TransformedTargetRegressor:
    lengths = np.full(num_columns, 0.4 * np.sqrt(num_columns))
    kernel = ConstantKernel(1.0, (1e-2, 1e2)) * Matern(lengths, (0.1, 1e2), nu=2.5) + WhiteKernel(0.1, (1e-5, 1e1))
    return _over_components(MultiOutputRegressor(GaussianProcessRegressor(kernel, normalize_y=True)))


def _trees() -> TransformedTargetRegressor:
    return _over_components(ExtraTreesRegressor(100, min_samples_leaf=2, random_state=0))


def _over_components(model: Any) -> TransformedTargetRegressor:
    return TransformedTargetRegressor(model, transformer=PCA(NUM_COMPONENTS), check_inverse=False)
