"""Is a space sound wherever a trial may come to lie: findings as `<key>: <what must hold>, got <value>`."""

import itertools
from collections.abc import Callable, Collection, Iterator, Mapping
from typing import Any

from fer_search.errors import finding
from fer_search.tuning.space import Point, Space

Check = Callable[[Mapping[str, Any]], list[str]]
"""Returns `<key>: <rule>, got <value>` for everything wrong with a complete parameter set."""


def check_conditions(space: Space, labels: Mapping[str, str]) -> Iterator[str]:
    """Yield each condition that makes no difference, and two of one parameter that hold at once."""
    for parameter in space.searched:
        own = [name for name, dimension in space.dimensions.items() if dimension.parameter == parameter]
        settings = space.settings([parameter])
        for name in own:
            key, when = f"{labels[name]}.when", dict(space.dimensions[name].when)
            if not any(name in point for point in settings):
                yield finding(key, "must hold somewhere", when)
            elif when and all(name in point for point in settings):
                yield finding(key, "must not hold everywhere", when)
        for first, second in itertools.combinations(own, 2):
            both = next((point for point in settings if first in point and second in point), None)
            if both is not None:
                rule = f"must exclude that of {labels[first]}, but both hold{where(space, both, [parameter])}"
                yield finding(f"{labels[second]}.when", rule, dict(space.dimensions[second].when))


def always_searched(space: Space) -> set[str]:
    """Return the parameters whose value is never that of `[base]`."""
    return {
        parameter for parameter in space.searched if all(_has(space, p, parameter) for p in space.settings([parameter]))
    }


def check_first_point(space: Space, check: Check) -> Iterator[tuple[str, str]]:
    """Yield what is wrong with `[base]` beside the values of the first trial: where, and what `check` says."""
    point = space.fill({})
    searched = {space.dimensions[name].parameter: value for name, value in point.items()}
    for line in check(space.complete(point)):
        key = line.partition(":")[0]
        yield f"space.{key}: at {searched[key]!r}: " if key in searched else "base.", line


def check_ends(space: Space, labels: Mapping[str, str], check: Check, *, known: Collection[str]) -> Iterator[str]:
    """Yield what is wrong at the ends of each domain beside the first trial's values of the others, and not `known`."""
    told = set(known)
    for parameter in space.searched:
        for point in space.corners([parameter]):
            if not _has(space, point, parameter):
                continue  # the ends of what decides on it are judged by themselves
            label = next(labels[name] for name in point if space.dimensions[name].parameter == parameter)
            values = space.complete(point)
            for line in check(values):
                if line not in told:
                    yield f"{label}: at {values[parameter]!r}{where(space, point, [parameter])}: {line}"
                    told.add(line)


def check_together(space: Space, check: Check) -> Iterator[str]:
    """Yield what is wrong at the ends of up to three domains at a time: one may switch off what another sets."""
    sound = True
    for size in (2, 3):
        for parameters in itertools.combinations(space.searched, size):
            for point in space.corners(parameters):
                for line in check(space.complete(point)):
                    yield f"space: at {_values(space, point, {*parameters, *space.deciding(parameters)})}: {line}"
                    sound = False
        if not sound:
            return


def where(space: Space, point: Point, parameters: Collection[str]) -> str:
    """Return ` where x = 1` of what decides at a point whether `parameters` are searched; empty if nothing does."""
    deciding = space.deciding(parameters)
    return f" where {_values(space, point, deciding)}" if deciding else ""


def _values(space: Space, point: Point, parameters: Collection[str]) -> str:
    values = space.complete(point)
    return ", ".join(f"{key} = {values[key]!r}" for key in space.searched if key in parameters)


def _has(space: Space, point: Point, parameter: str) -> bool:
    return any(space.dimensions[name].parameter == parameter for name in point)
