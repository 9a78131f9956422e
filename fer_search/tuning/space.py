"""Read a search space file and check all of it before anything starts.

The file is TOML: `[search]` says how to search, `[base]` fixes parameters, `[space.<parameter>]` gives a domain. The
parameters' names, types and bounds are not known here: the caller passes its defaults and a check, and a domain is
valid if each of its ends builds a valid parameter set together with `[base]`.
"""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution as Categorical
from optuna.distributions import FloatDistribution as Real
from optuna.distributions import IntDistribution as Integer

from fer_search.errors import InvalidInput, nearest_name, problem

Distribution = Categorical | Real | Integer
Check = Callable[[Mapping[str, Any]], list[str]]
"""Returns `<key>: <rule>, got <value>` for everything wrong with a complete parameter set."""

SEARCH_DEFAULTS: dict[str, Any] = {
    "resource": "epochs", "metric": "val_accuracy", "num_trials": 50, "eta": 3, "first_rung": 0, "seed": 0,
}  # fmt: skip
SEARCH_MINIMA = {"num_trials": 1, "eta": 2, "first_rung": 1, "seed": 0}
DOMAIN_KEYS = ("low", "high", "log", "step", "choices", "default")


@dataclass(frozen=True)
class Space:
    """A checked search space; `parameters` holds the complete default parameter set with `[base]` applied."""

    parameters: dict[str, Any]
    domains: dict[str, Distribution]
    first_point: dict[str, Any]
    resource: str
    metric: str
    num_trials: int
    eta: int
    first_rung: int
    seed: int

    @property
    def horizon(self) -> int:
        """The resource at which a trial is complete."""
        return int(self.parameters[self.resource])

    @property
    def rungs(self) -> tuple[int, ...]:
        """The resources at which weak trials are stopped: from `first_rung`, each `eta` times the one before."""
        count = 0 if self.first_rung >= self.horizon else math.ceil(math.log(self.horizon / self.first_rung, self.eta))
        levels = (self.first_rung * self.eta**k for k in range(count + 1))
        return tuple(level for level in levels if level < self.horizon)


def read_space(
    table: Mapping[str, Any], *, source: Path, defaults: Mapping[str, Any], check: Check, metrics: Iterable[str]
) -> Space:
    """Check the parsed TOML `table` of the file `source`; raises InvalidInput with all problems of the file.

    `defaults` is the complete default parameter set; `metrics` are the names that an epoch reports.
    """
    reader = _Reader(source, defaults, check)
    space = reader.read(table, set(metrics))
    if reader.problems:
        raise InvalidInput(reader.problems)
    assert space is not None
    return space


class _Reader:
    """Collects the problems of one file while it is read."""

    def __init__(self, source: Path, defaults: Mapping[str, Any], check: Check) -> None:
        self.source, self.defaults, self.check = source, defaults, check
        self.problems: list[str] = []

    def read(self, table: Mapping[str, Any], metrics: set[str]) -> Space | None:
        for key in table:
            if key not in ("search", "base", "space"):
                self._add(
                    key,
                    f"must be one of the tables search, base, space{nearest_name(key, ('search', 'base', 'space'))}",
                    table[key],
                )
        search, base, domains = (self._table(table, key) for key in ("search", "base", "space"))
        settings = self._search(search, metrics)
        resource = settings["resource"]
        parameters = {**self.defaults, **base}
        self.problems += [f"{self.source}: base.{line}" for line in self.check(parameters)]
        if not domains:
            self._add("space", "must name at least one parameter to search", domains)
        if resource in domains:
            self._add(
                f"space.{resource}",
                "must not be searched, since it is the resource that trials are compared at",
                domains[resource],
            )
        elif not _is_int(parameters.get(resource)):
            self._add("search.resource", "must name a whole-number parameter", resource)
        for key in sorted(base.keys() & domains.keys()):
            self._add(f"base.{key}", "must not be fixed here and searched in [space] at once", base[key])
        # A domain is judged by building parameter sets from it, which needs a sound base.
        sound = dict(self.defaults) if self.problems else parameters
        read = {key: self._domain(key, domain) for key, domain in domains.items()}
        found = {key: domain for key, domain in read.items() if domain is not None}
        self._check_ends(found, sound)
        horizon = parameters.get(resource)
        if isinstance(horizon, int) and settings["first_rung"] >= horizon > 0:
            self._add("search.first_rung", f"must be below the horizon, {resource} = {horizon}", settings["first_rung"])
        if not self.problems:
            self._check_together(found, parameters)
        if self.problems:
            return None
        distributions = {key: distribution for key, (distribution, _) in found.items()}
        first_point = {key: default for key, (_, default) in found.items()}
        first_rung = settings["first_rung"] or max(1, math.ceil(parameters[resource] / 3))
        return Space(
            parameters=parameters,
            domains=distributions,
            first_point=first_point,
            **{**settings, "first_rung": first_rung},
        )

    def _search(self, search: Mapping[str, Any], metrics: set[str]) -> dict[str, Any]:
        settings = dict(SEARCH_DEFAULTS)
        for key, value in search.items():
            if key not in SEARCH_DEFAULTS:
                self._add(
                    f"search.{key}", f"must be a setting of the search{nearest_name(key, SEARCH_DEFAULTS)}", value
                )
            elif key in SEARCH_MINIMA and not (_is_int(value) and SEARCH_MINIMA[key] <= value < 2**32):
                self._add(f"search.{key}", f"must be a whole number from {SEARCH_MINIMA[key]}", value)
            elif key not in SEARCH_MINIMA and not isinstance(value, str):
                self._add(f"search.{key}", "must be a name", value)
            elif key == "resource" and value not in self.defaults:
                self._add("search.resource", f"must name a parameter{nearest_name(str(value), self.defaults)}", value)
            elif key == "metric" and value not in metrics:
                self._add("search.metric", f"must be one of {', '.join(sorted(metrics))}", value)
            else:
                settings[key] = value
        return settings

    def _domain(self, key: str, domain: Any) -> tuple[Distribution, Any] | None:
        """Return one parameter's distribution and its value in the first trial, or None after a problem."""
        name = f"space.{key}"
        before = len(self.problems)
        if key not in self.defaults:
            self._add(name, f"must be a parameter{nearest_name(key, self.defaults)}", domain)
        elif not isinstance(domain, Mapping):
            self._add(name, "must be a table with low and high, or with choices", domain)
        else:
            for unknown in domain.keys() - set(DOMAIN_KEYS):
                self._add(
                    f"{name}.{unknown}",
                    f"must be one of {', '.join(DOMAIN_KEYS)}{nearest_name(unknown, DOMAIN_KEYS)}",
                    domain[unknown],
                )
        if len(self.problems) > before:
            return None
        distribution = self._choices(name, domain) if "choices" in domain else self._range(name, key, domain)
        if distribution is None:
            return None
        # The first trial answers whether the search beat the settings that one came with, so it must lie in the space.
        default = domain.get("default", self.defaults[key])
        if not _contains(distribution, default):
            self._add(name, "must contain the default, or name another one as `default`", default)
        return distribution, default

    def _check_ends(self, found: Mapping[str, tuple[Distribution, Any]], parameters: Mapping[str, Any]) -> None:
        """Check the ends of each domain beside the first trial's values of the others."""
        base = {**parameters, **{key: default for key, (_, default) in found.items()}}
        for key, (distribution, _) in found.items():
            for end in ends(distribution):
                lines = self.check({**base, key: end})
                self.problems += [f"{self.source}: space.{key}: at {end!r}: {line}" for line in lines]

    def _check_together(self, found: Mapping[str, tuple[Distribution, Any]], parameters: Mapping[str, Any]) -> None:
        """Check the ends of up to three domains at a time: one may switch off what another sets."""
        base = {**parameters, **{key: default for key, (_, default) in found.items()}}
        for keys in (keys for size in (2, 3) for keys in itertools.combinations(found, size)):
            for values in itertools.product(*(ends(found[key][0]) for key in keys)):
                if problems := self.check({**base, **dict(zip(keys, values, strict=True))}):
                    point = ", ".join(f"{key} = {value!r}" for key, value in zip(keys, values, strict=True))
                    self.problems += [f"{self.source}: space: at {point}: {line}" for line in problems]
            if self.problems:
                return

    def _choices(self, name: str, domain: Mapping[str, Any]) -> Distribution | None:
        choices = domain["choices"]
        if set(domain) - {"choices", "default"}:
            self._add(name, "must have either choices or low and high", dict(domain))
        elif (
            not isinstance(choices, list)
            or len(set(map(repr, choices))) < 2
            or len(set(map(repr, choices))) < len(choices)
        ):
            self._add(f"{name}.choices", "must be a list of at least two different values", choices)
        elif not all(isinstance(choice, str | bool | int | float) for choice in choices):
            self._add(f"{name}.choices", "must hold strings, booleans or numbers", choices)
        else:
            return Categorical(choices)
        return None

    def _range(self, name: str, key: str, domain: Mapping[str, Any]) -> Distribution | None:
        low, high, log, step = (domain.get(part) for part in ("low", "high", "log", "step"))
        whole = _is_int(self.defaults[key])
        before = len(self.problems)
        if isinstance(self.defaults[key], bool | str):
            self._add(name, "must have choices, since the parameter is not a number", dict(domain))
            return None
        for part, value in (("low", low), ("high", high), *([("step", step)] if step is not None else [])):
            if not (_is_int(value) if whole else _is_number(value)):
                self._add(f"{name}.{part}", f"must be a {'whole' if whole else 'finite'} number", value)
        if not isinstance(log, bool | None):
            self._add(f"{name}.log", "must be true or false", log)
        if len(self.problems) > before:
            return None
        assert low is not None
        assert high is not None
        if not low < high:
            self._add(f"{name}.high", f"must be above low = {low!r}", high)
        elif log and low <= 0:
            self._add(f"{name}.low", "must be above 0 on a log scale", low)
        elif log and step is not None:
            self._add(f"{name}.step", "must not be given on a log scale", step)
        elif step is not None and not 0 < step <= high - low:
            self._add(f"{name}.step", f"must be above 0 and at most high - low = {high - low!r}", step)
        elif whole:
            return Integer(low, high, log=bool(log), step=step or 1)
        else:
            return Real(float(low), float(high), log=bool(log), step=None if step is None else float(step))
        return None

    def _table(self, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if isinstance(value, Mapping):
            return value
        self._add(key, "must be a table", value)
        return {}

    def _add(self, key: str, rule: str, value: object) -> None:
        self.problems.append(problem(self.source, key, rule, value))


def ends(distribution: Distribution) -> tuple[Any, ...]:
    """Return both ends of a range, or all choices."""
    if isinstance(distribution, Categorical):
        return tuple(distribution.choices)
    return distribution.low, distribution.high


def _contains(distribution: Distribution, value: Any) -> bool:
    if isinstance(distribution, Categorical):
        return value in distribution.choices
    if not _is_number(value) or (distribution.log and value <= 0):
        return False
    return bool(distribution._contains(distribution.to_internal_repr(value)))


def _is_int(value: object) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def _is_number(value: object) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool) and math.isfinite(value)
