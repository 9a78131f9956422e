"""A search space as a value: what is searched, where each parameter applies, and which points come first.

A point is what Optuna stores of a trial: a value for each dimension that applies to it. The trial itself runs the
complete parameter set of its point. Nothing here knows files or what the parameters mean.
"""

import itertools
import math
from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass
from typing import Any

import optuna
from optuna.distributions import CategoricalDistribution as Categorical
from optuna.distributions import FloatDistribution as Real
from optuna.distributions import IntDistribution as Integer

Distribution = Categorical | Real | Integer
Point = dict[str, Any]


@dataclass(frozen=True)
class Prior:
    """Where good values of a range are expected: a normal distribution in the unit interval, cut off at its ends."""

    mean: float
    deviation: float


@dataclass(frozen=True)
class Dimension:
    """One domain of one parameter, and where it applies.

    `name` is Optuna's: the parameter's own, and `parameter[condition]` where the parameter has several domains.
    `when` maps other parameters to the values that each must have one of. `default` is the value where nobody chooses
    one, as in the first trial. `prior` is a Prior for a range, and a probability for each of the choices otherwise.
    """

    name: str
    parameter: str
    domain: Distribution
    default: Any
    when: Mapping[str, tuple[Any, ...]]
    prior: Prior | tuple[float, ...] | None

    def applies(self, parameters: Mapping[str, Any]) -> bool:
        """Return whether the dimension is searched beside the values `parameters` of what its condition names."""
        return all(parameters[key] in values for key, values in self.when.items())

    def suggest(self, trial: optuna.Trial) -> Any:
        """Ask Optuna for a value."""
        domain = self.domain
        if isinstance(domain, Categorical):
            return trial.suggest_categorical(self.name, domain.choices)
        if isinstance(domain, Integer):
            return trial.suggest_int(self.name, domain.low, domain.high, step=domain.step, log=domain.log)
        return trial.suggest_float(self.name, domain.low, domain.high, step=domain.step, log=domain.log)


@dataclass(frozen=True)
class Space:
    """A checked search space.

    `parameters` is the complete default parameter set with `[base]` applied, which a parameter has its value from
    where it is not searched. `dimensions` are by name, each behind those that its condition is about. `points` are
    those of the first trials, in their order. `searcher` is curves, tpe or random; `scheduler` is promotion, stopping
    or none. Beside a good value of `metric`, a low `cost` is looked for, unless it is None; it follows from the
    `cost_fields`, which are searched, and from what is fixed.
    """

    parameters: dict[str, Any]
    dimensions: dict[str, Dimension]
    points: tuple[Point, ...]
    resource: str
    metric: str
    searcher: str
    scheduler: str
    num_trials: int
    eta: int
    first_rung: int
    seed: int
    cost: str | None
    cost_fields: tuple[str, ...]

    @property
    def domains(self) -> dict[str, Distribution]:
        """Optuna's distribution of each dimension, by its name."""
        return {name: dimension.domain for name, dimension in self.dimensions.items()}

    @property
    def priors(self) -> dict[str, Prior | tuple[float, ...]]:
        """Where good values are expected, by dimension, for those that say so."""
        return {name: dimension.prior for name, dimension in self.dimensions.items() if dimension.prior is not None}

    @property
    def searched(self) -> tuple[str, ...]:
        """The parameters that are searched, each once, whatever the number of its domains."""
        return tuple(dict.fromkeys(dimension.parameter for dimension in self.dimensions.values()))

    @property
    def cost_dimensions(self) -> frozenset[str]:
        """The names of the dimensions that decide the cost, or whether one that does applies."""
        return frozenset(self._named({*self.cost_fields, *self.deciding(self.cost_fields)}))

    @property
    def first_point(self) -> Point:
        """The point of trial 0, the space's own settings."""
        return self.points[0]

    @property
    def horizon(self) -> int:
        """The resource at which a trial is complete."""
        return int(self.parameters[self.resource])

    @property
    def rungs(self) -> tuple[int, ...]:
        """The resources at which trials are compared: from `first_rung`, each `eta` times the one before.

        Empty where the scheduler is none.
        """
        if self.scheduler == "none" or self.first_rung >= self.horizon:
            return ()
        count = math.ceil(math.log(self.horizon / self.first_rung, self.eta))
        levels = (self.first_rung * self.eta**k for k in range(count + 1))
        return tuple(level for level in levels if level < self.horizon)

    def suggest(self, trial: optuna.Trial) -> Point:
        """Ask Optuna for the value of each dimension that applies, and return them as a point."""
        return self._walk(lambda dimension: dimension.suggest(trial))[0]

    def fill(self, values: Mapping[str, Any]) -> Point:
        """Return the point with these values, by dimension, where they apply, and the defaults of the others."""
        return self._walk(lambda dimension: values.get(dimension.name, dimension.default))[0]

    def complete(self, point: Mapping[str, Any]) -> dict[str, Any]:
        """Return the complete parameter set of a point; raises KeyError where a dimension that applies has no value."""
        return self._walk(lambda dimension: point[dimension.name])[1]

    def corners(self, parameters: Collection[str]) -> list[Point]:
        """Return the points at all combinations of the ends of `parameters`, in every setting of what decides on them.

        The ends of choices are all of them. What is neither among `parameters` nor decides keeps its default.
        """
        own = {name: ends(self.dimensions[name].domain) for name in self._named(parameters)}
        return self._combinations({**own, **self._telling_values(parameters)})

    def settings(self, parameters: Collection[str]) -> list[Point]:
        """Return points between which every condition that decides on `parameters` changes; the first point first.

        What decides takes its default, its ends, every value that a condition names and one that none does; the others
        keep their defaults.
        """
        return self._combinations(self._telling_values(parameters))

    def deciding(self, parameters: Collection[str]) -> set[str]:
        """Return what the conditions of `parameters` are about, and what in turn the conditions of these are about."""
        found: set[str] = set()
        for dimension in reversed(self.dimensions.values()):  # a condition is about what stands before it
            if dimension.parameter in found or dimension.parameter in parameters:
                found |= dimension.when.keys()
        return found

    def _named(self, parameters: Collection[str]) -> list[str]:
        return [name for name, dimension in self.dimensions.items() if dimension.parameter in parameters]

    def _telling_values(self, parameters: Collection[str]) -> dict[str, tuple[Any, ...]]:
        """Return the values at which to look at each dimension that decides whether `parameters` are searched."""
        found = {}
        for name in self._named(self.deciding(parameters)):
            domain, default = self.dimensions[name].domain, self.dimensions[name].default
            telling = [default, *ends(domain)]
            if isinstance(domain, Integer):
                allowed = range(domain.low, domain.high + 1, domain.step)
                conditions = [d.when.get(self.dimensions[name].parameter, ()) for d in self.dimensions.values()]
                named = [value for values in conditions for value in values if value in allowed]
                telling += [*named, *[value for value in allowed[: len(named) + 1] if value not in named][:1]]
            found[name] = tuple(dict.fromkeys(telling))
        return found

    def _combinations(self, values: Mapping[str, tuple[Any, ...]]) -> list[Point]:
        combinations = itertools.product(*values.values())
        points = (self.fill(dict(zip(values, combination, strict=True))) for combination in combinations)
        return list({tuple(point.items()): point for point in points}.values())  # a value may decide on another's use

    def _walk(self, choose: Callable[[Dimension], Any]) -> tuple[Point, dict[str, Any]]:
        """Return the point, and its complete parameter set, of what is chosen for each dimension that applies."""
        point, parameters = {}, dict(self.parameters)
        for name, dimension in self.dimensions.items():
            if dimension.applies(parameters):
                point[name] = parameters[dimension.parameter] = choose(dimension)
        return point, parameters


def ends(domain: Distribution) -> tuple[Any, ...]:
    """Return both ends of a range, or all choices."""
    if isinstance(domain, Categorical):
        return tuple(domain.choices)
    return domain.low, domain.high
