"""Read a search space file and check all of it before anything starts.

The file is TOML: `[search]` says how to search, `[base]` fixes parameters, `[space.<parameter>]` gives a domain and
`[[points]]` what to try first. The parameters' names, types and bounds are not known here: the caller passes its
defaults and a check, and a domain is valid if each of its ends builds a valid parameter set together with `[base]`.
"""

import math
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from optuna.distributions import CategoricalDistribution as Categorical

from fer_search.errors import InvalidInput, finding, nearest_name
from fer_search.tuning.dimension_file import DimensionReader, is_unconditional
from fer_search.tuning.domain_file import as_stored, contains, is_int
from fer_search.tuning.space import Distribution, Point, Space, ends
from fer_search.tuning.space_check import (
    Check,
    always_searched,
    check_conditions,
    check_ends,
    check_first_point,
    check_together,
    where,
)

TABLES = ("search", "base", "space", "points")
SEARCH_DEFAULTS: dict[str, Any] = {
    "resource": "epochs", "metric": "val_accuracy", "searcher": "curves", "scheduler": "promotion", "num_trials": 50,
    "eta": 3, "first_rung": 0, "seed": 0, "cost": None,
}  # fmt: skip
NUM_HALVINGS = 3
"""Many short trials find more than few that are compared late: docs/search_quality.md."""
SEARCH_MINIMA = {"num_trials": 1, "eta": 2, "first_rung": 1, "seed": 0}
SEARCH_CHOICES = {"searcher": ("curves", "tpe", "random"), "scheduler": ("promotion", "stopping", "none")}


def read_space(
    table: Mapping[str, Any],
    *,
    source: Path,
    defaults: Mapping[str, Any],
    check: Check,
    metrics: Iterable[str],
    costs: Iterable[str] = (),
    cost_fields: Iterable[str] = (),
) -> Space:
    """Check the parsed TOML `table` of the file `source`; raises InvalidInput with all problems of the file.

    `defaults` is the complete default parameter set; `metrics` are the names that an epoch reports, `costs` those of
    what a configuration may cost, all of which follow from `cost_fields`.
    """
    reader = _Reader(defaults, check)
    space = reader.read(table, set(metrics), tuple(costs), tuple(cost_fields))
    if reader.findings:
        raise InvalidInput([f"{source}: {line}" for line in reader.findings])
    return space


class _Reader:
    """Collects what is wrong with one file while it is read."""

    def __init__(self, defaults: Mapping[str, Any], check: Check) -> None:
        self.defaults, self.check = defaults, check
        self.findings: list[str] = []

    def read(
        self, table: Mapping[str, Any], metrics: set[str], costs: tuple[str, ...], cost_fields: tuple[str, ...]
    ) -> Space:
        """Return the space of what is sound in the file, which is all of it if nothing was found."""
        for key in sorted(table.keys() - set(TABLES)):
            self._add(key, f"must be one of the tables {', '.join(TABLES)}{nearest_name(key, TABLES)}", table[key])
        search, base, domains = (self._table(table, key) for key in TABLES[:3])
        parameters = {**self.defaults, **base}
        if not domains:
            self._add("space", "must name at least one parameter to search", domains)
        settings = self._search(search, metrics, costs)
        settings["first_rung"] = self._first_rung(settings, domains, parameters)
        reader = DimensionReader(domains, defaults=self.defaults, parameters=parameters, add=self._add)
        dimensions, labels = reader.read()
        if settings["cost"] is not None:
            self._check_cost(settings, domains, cost_fields)
        settings["cost_fields"] = tuple(key for key in cost_fields if key in domains and settings["cost"] is not None)
        space = Space(parameters=parameters, dimensions=dimensions, points=(), **settings)
        self.findings += check_conditions(space, labels)
        if space.searcher != "curves":
            for name in (name for name, dimension in dimensions.items() if dimension.prior is not None):
                rule = f"must not be given, since it has no effect while searcher is {space.searcher}"
                self._add(f"{labels[name]}.prior", rule, "a prior")
        # Where a parameter is searched everywhere, its fixed value would have no effect.
        for key in sorted(base.keys() & domains.keys()):
            if is_unconditional(domains[key]) or key in always_searched(space):
                self._add(f"base.{key}", "must not be fixed here and searched in [space] at once", base[key])
        at_first = list(check_first_point(space, self.check))
        known = {line for _, line in at_first}
        self.findings += [place + line for place, line in at_first]
        self.findings += check_ends(space, labels, self.check, known=known)
        if not self.findings:
            self.findings += check_together(space, self.check)
        points = self._points(table.get("points", []), space, domains, known)
        return replace(space, points=(space.fill({}), *points))

    def _search(self, search: Mapping[str, Any], metrics: set[str], costs: tuple[str, ...]) -> dict[str, Any]:
        settings = dict(SEARCH_DEFAULTS)
        choices = {**SEARCH_CHOICES, "metric": sorted(metrics), "cost": costs}
        for key, value in search.items():
            if key not in SEARCH_DEFAULTS:
                rule = f"must be a setting of the search{nearest_name(key, SEARCH_DEFAULTS)}"
            elif key in SEARCH_MINIMA and not (is_int(value) and SEARCH_MINIMA[key] <= value < 2**32):
                rule = f"must be a whole number from {SEARCH_MINIMA[key]}"
            elif key not in SEARCH_MINIMA and not isinstance(value, str):
                rule = "must be a name"
            elif key == "resource" and value not in self.defaults:
                rule = f"must name a parameter{nearest_name(value, self.defaults)}"
            elif key == "cost" and not costs:
                rule = "must not be given, since nothing is known to cost here"
            elif key in choices and value not in choices[key]:
                rule = f"must be one of {', '.join(choices[key])}"
            elif key in ("eta", "first_rung") and search.get("scheduler") == "none":
                rule = "must not be given, since it has no effect while scheduler is none"
            else:
                settings[key] = value
                continue
            self._add(f"search.{key}", rule, value)
        return settings

    def _check_cost(
        self, settings: Mapping[str, Any], domains: Mapping[str, Any], cost_fields: tuple[str, ...]
    ) -> None:
        if settings["searcher"] == "tpe":
            self._add(
                "search.cost", "must not be given, since searcher tpe looks at the metric alone", settings["cost"]
            )
        if not domains.keys() & set(cost_fields):
            rule = f"must not be given, since it is the same everywhere: none of {', '.join(cost_fields)} is searched"
            self._add("search.cost", rule, settings["cost"])

    def _first_rung(
        self, settings: Mapping[str, Any], domains: Mapping[str, Any], parameters: Mapping[str, Any]
    ) -> int:
        """Return the first rung, by default three halvings before the horizon, after a check of what both count."""
        resource, first_rung = settings["resource"], int(settings["first_rung"])
        horizon = parameters[resource]
        if resource in domains:
            rule = "must not be searched, since it is the resource that trials are compared at"
            self._add(f"space.{resource}", rule, domains[resource])
        elif not is_int(horizon):
            self._add("search.resource", "must name a whole-number parameter", resource)
        elif first_rung >= horizon > 0:
            self._add("search.first_rung", f"must be below the horizon, {resource} = {horizon}", first_rung)
        elif first_rung == 0:
            share: int = settings["eta"] ** NUM_HALVINGS
            return max(1, math.ceil(horizon / share))
        return first_rung

    def _points(self, tables: Any, space: Space, domains: Mapping[str, Any], known: set[str]) -> list[Point]:
        """Return the points that are to be tried after the first; `known` are the findings about that."""
        if not isinstance(tables, list) or not all(isinstance(table, Mapping) for table in tables):
            self._add("points", "must be an array of tables, each under [[points]]", tables)
            return []
        if space.num_trials < 1 + len(tables):
            rule = f"must be at least {1 + len(tables)}, for the first trial and those of [[points]]"
            self._add("search.num_trials", rule, space.num_trials)
        labels = {tuple(space.fill({}).items()): "the first trial"}
        found = []
        for number, table in enumerate(tables, start=1):
            label = f"points[{number}]"
            point = self._point(table, label, space, domains)
            if point is None:
                continue
            other = labels.setdefault(tuple(point.items()), label)
            if other != label:
                self._add(label, f"must differ from {other}", dict(table))
                continue
            lines = self.check(space.complete(point))
            self.findings += [f"{label}: {line}" for line in lines if line not in known]
            found.append(point)
        return found

    def _point(self, table: Mapping[str, Any], label: str, space: Space, domains: Mapping[str, Any]) -> Point | None:
        """Return the point of one table, in which what is not given has the value of the first trial."""
        before = len(self.findings)
        given = {
            name: as_stored(dimension.domain, table[dimension.parameter])
            for name, dimension in space.dimensions.items()
            if contains(dimension.domain, table.get(dimension.parameter))
        }
        point = space.fill(given)
        for key, value in table.items():
            domain = next(
                (d.domain for name, d in space.dimensions.items() if d.parameter == key and name in point), None
            )
            if key not in domains:
                self._add(f"{label}.{key}", f"must be a searched parameter{nearest_name(key, domains)}", value)
            elif domain is not None and not contains(domain, value):
                self._add(f"{label}.{key}", f"must be {_content(domain)}{where(space, point, [key])}", value)
            elif domain is None and key in space.searched:
                rule = f"must not be given, since it is not searched{where(space, point, [key])}"
                self._add(f"{label}.{key}", rule, value)
        return point if len(self.findings) == before else None

    def _table(self, table: Mapping[str, Any], key: str) -> Mapping[str, Any]:
        value = table.get(key, {})
        if isinstance(value, Mapping):
            return value
        self._add(key, "must be a table", value)
        return {}

    def _add(self, key: str, rule: str, value: object) -> None:
        self.findings.append(finding(key, rule, value))


def _content(domain: Distribution) -> str:
    if isinstance(domain, Categorical):
        return f"one of {', '.join(map(repr, domain.choices))}"
    low, high = ends(domain)
    return f"from {low!r} to {high!r}" + (f" in steps of {domain.step!r}" if domain.step not in (None, 1) else "")
