"""Read the tables of `[space]`: which dimensions there are, where each applies, in which order to ask for them."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from optuna.distributions import FloatDistribution as Real

from fer_search.errors import nearest_name
from fer_search.tuning.domain_file import Add, contains, read_default, read_domain, read_prior
from fer_search.tuning.space import Dimension, Distribution

Condition = dict[str, tuple[Any, ...]]


@dataclass(frozen=True)
class _Entry:
    """One table, named as in messages, with its domain and the value of the first trial."""

    label: str
    parameter: str
    table: Mapping[str, Any]
    domain: Distribution
    default: Any


class DimensionReader:
    """Reads `tables`, the content of `[space]`, and tells `add(key, rule, value)` what is wrong with it.

    `defaults` is the complete default parameter set, `parameters` the same with `[base]` applied.
    """

    def __init__(
        self, tables: Mapping[str, Any], *, defaults: Mapping[str, Any], parameters: Mapping[str, Any], add: Add
    ) -> None:
        self.tables, self.defaults, self.parameters, self.add = tables, defaults, parameters, add
        self.entries: dict[str, list[_Entry]] = {}

    def read(self) -> tuple[dict[str, Dimension], dict[str, str]]:
        """Return the sound dimensions by name, in the order to ask for them, and their tables' names in messages."""
        for key, value in self.tables.items():
            if key not in self.defaults:
                self.add(f"space.{key}", f"must be a parameter{nearest_name(key, self.defaults)}", value)
            elif found := [entry for label, table in labelled(key, value) for entry in self._entry(label, key, table)]:
                self.entries[key] = found
        conditions = {entry.label: self._condition(entry) for found in self.entries.values() for entry in found}
        dimensions: dict[str, Dimension] = {}
        labels: dict[str, str] = {}
        for parameter in self._in_order(conditions):
            for entry in self.entries[parameter]:
                prior = read_prior(entry.table, entry.domain, label=entry.label, add=self.add)
                when = conditions[entry.label]
                if when is None or not all(any(key == d.parameter for d in dimensions.values()) for key in when):
                    continue
                name = parameter if entry.label == f"space.{parameter}" or not when else f"{parameter}[{_shown(when)}]"
                if name in dimensions:
                    self.add(f"{entry.label}.when", f"must exclude that of {labels[name]}", entry.table.get("when", {}))
                else:
                    dimensions[name] = Dimension(name, parameter, entry.domain, entry.default, when, prior)
                    labels[name] = entry.label
        return dimensions, labels

    def _entry(self, label: str, parameter: str, table: Any) -> list[_Entry]:
        domain = read_domain(table, self.defaults[parameter], label=label, add=self.add)
        if domain is None:
            return []
        default = read_default(table, domain, self.parameters[parameter], label=label, add=self.add)
        return [_Entry(label, parameter, table, domain, default)]

    def _condition(self, entry: _Entry) -> Condition | None:
        """Return what must hold where this entry applies, or None after a problem, maybe one of another entry."""
        when = entry.table.get("when", {})
        if not isinstance(when, Mapping) or ("when" in entry.table and not when):
            self.add(f"{entry.label}.when", "must be a table of other parameters and the values that they have", when)
            return None
        found: Condition = {}
        for key, value in when.items():
            values = tuple(value) if isinstance(value, list) else (value,)
            about = [other.domain for other in self.entries.get(key, ())]
            if key not in self.defaults:
                rule = f"must be a parameter{nearest_name(key, self.defaults)}"
            elif key not in self.tables:
                fixed, holds = self.parameters[key], "always" if self.parameters[key] in values else "never"
                rule = f"must be about a searched parameter: {key} = {fixed!r} is fixed, so it {holds} holds"
            elif not about:
                continue  # its own table is wrong
            elif any(isinstance(domain, Real) for domain in about):
                rule = f"must be about choices or whole numbers, which {key} is not"
            elif not values or len(set(map(repr, values))) < len(values):
                rule = "must be a value or a list of different values"
            elif not all(self._is_possible(key, each, about) for each in values):
                rule = f"must be what {key} can be"
            else:
                found[key] = values
                continue
            self.add(f"{entry.label}.when.{key}", rule, value)
        return found if len(found) == len(when) else None

    def _is_possible(self, key: str, value: object, about: list[Distribution]) -> bool:
        if any(contains(domain, value) for domain in about):
            return True
        return not is_unconditional(self.tables[key]) and repr(value) == repr(self.parameters[key])

    def _in_order(self, conditions: Mapping[str, Condition | None]) -> list[str]:
        """Return the parameters, each behind what its conditions are about, otherwise as in the file."""
        needs = {
            parameter: {key for entry in found for key in conditions[entry.label] or ()}
            for parameter, found in self.entries.items()
        }
        ordered: list[str] = []
        left = list(needs)
        while left:
            free = next((parameter for parameter in left if not needs[parameter] & set(left)), None)
            if free is not None:
                ordered.append(free)
                left.remove(free)
                continue
            path = [left[0]]
            while path[-1] not in path[:-1]:
                path.append(next(key for key in left if key in needs[path[-1]]))
            cycle = path[path.index(path[-1]) :]
            self.add(f"space.{cycle[0]}.when", "must not depend on the parameter itself", " -> ".join(cycle))
            left = [parameter for parameter in left if parameter not in cycle]
        return ordered


def labelled(key: str, value: Any) -> list[tuple[str, Any]]:
    """Return the tables of one parameter with their names in messages: those of an array are numbered from 1."""
    if isinstance(value, list) and value:
        return [(f"space.{key}[{number}]", table) for number, table in enumerate(value, start=1)]
    return [(f"space.{key}", value)]


def is_unconditional(value: Any) -> bool:
    """Return whether a parameter has a table without a condition."""
    return any(isinstance(table, Mapping) and "when" not in table for _, table in labelled("", value))


def _shown(condition: Condition) -> str:
    return ",".join(f"{key}={'|'.join(map(json.dumps, values))}" for key, values in condition.items())
