"""Trials of an earlier search as what another one knows from its beginning: those that lie in its space."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from typing import Any

from fer_search.journal import TrialRecord
from fer_search.tuning.domain_file import as_stored, contains
from fer_search.tuning.space import Point, Space


def past_trials(trials: Iterable[TrialRecord], space: Space) -> list[TrialRecord]:
    """Return those of `trials` that say something of `space`, with their points there, as trials that ended.

    What was not complete counts as stopped where it was. A trial without an epoch says nothing, nor does a machine
    that broke; a diverged one does.
    """
    found = []
    for trial in trials:
        point = locate(trial.parameters, space)
        tells = trial.diverged or (trial.state != "FAIL" and trial.epochs)
        if point is not None and tells:
            found.append(replace(trial, point=point, state=trial.state if trial.ended else "PRUNED"))
    return found


def locate(parameters: Mapping[str, Any], space: Space) -> Point | None:
    """Return the point whose complete parameter set this is, or None where it does not lie in `space`.

    A parameter that `space` fixes must have that value, and one that it searches a value of its domain.
    """
    point = {
        name: as_stored(dimension.domain, parameters[dimension.parameter])
        for name, dimension in space.dimensions.items()
        if dimension.applies(parameters) and contains(dimension.domain, parameters[dimension.parameter])
    }
    try:
        complete = space.complete(point)
    except KeyError:  # a value is outside of the one domain that applies
        return None
    return point if complete == dict(parameters) else None
