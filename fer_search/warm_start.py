"""What a new search takes over from an earlier one: checked to compare, and kept in the new one's own settings."""

from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from fer_search.data.faces import ImageForm
from fer_search.data.soft_labels import read_soft_labels
from fer_search.errors import InvalidInput, problem
from fer_search.journal import TrialRecord
from fer_search.record import soft_labels_digest_of
from fer_search.runs import SETTINGS
from fer_search.searches import Plan
from fer_search.space_tables import SPLIT_FIELDS
from fer_search.tradeoffs import measure_of
from fer_search.tuning.cost_model import cost_of
from fer_search.tuning.past_trials import past_trials
from fer_search.tuning.space import Space


def take_over(
    directory: Path, settings: Mapping[str, Any], space: Space, trials: Sequence[TrialRecord], *, plan: Plan
) -> dict[str, Any]:
    """Return what the search of `plan` keeps in its settings of the one in `directory`, whose `trials` these are.

    That is all its decisions depend on, so that it can be resumed without the earlier one. Raises InvalidInput where
    the earlier results would not compare, where none lies in the new space, or where nobody would learn from them. A
    cost that the new search looks at and the earlier one did not is measured.
    """
    new = plan.space
    pairs: dict[str, tuple[Any, Any]] = {
        "resource": (space.resource, new.resource),
        "metric": (space.metric, new.metric),
        "horizon": (space.horizon, new.horizon),
        "fingerprint of the data": (settings["data"]["fingerprint"], plan.faces.fingerprint()),
        "digest of the soft labels": (
            soft_labels_digest_of(settings),
            plan.soft_labels and read_soft_labels(plan.soft_labels).digest(),
        ),
        **{key: (space.parameters[key], new.parameters[key]) for key in SPLIT_FIELDS},
    }
    problems = [
        problem(directory / SETTINGS, key, f"must be {there!r}, as in the search that is to learn from it", here)
        for key, (here, there) in pairs.items()
        if here != there
    ]
    if new.searcher == "random":
        rule = "must not be given, since it has no effect while searcher is random"
        problems.append(problem("command line", "warm-start", rule, directory.name))
    taken = past_trials(trials, new)
    if not problems and not taken:
        rule = "must hold one with a result that lies in the new space"
        problems.append(problem(directory / SETTINGS, "trials", rule, f"{len(trials)} trials"))
    if problems:
        raise InvalidInput(problems)
    if new.cost is not None:
        taken = _with_costs(
            taken if space.cost == new.cost else [replace(each, cost=None) for each in taken], new, plan.faces.form
        )
    return {
        "search": directory.name,
        "search_id": settings["search_id"],
        "left_out": len(trials) - len(taken),
        "trials": [
            {
                "number": trial.number,
                "point": trial.point,
                "state": trial.state,
                "message": trial.message,
                "values": [metrics[new.metric] for metrics in trial.epochs],
                **({"cost": trial.cost} if new.cost is not None else {}),
            }
            for trial in taken
        ],
    }


def taken_over(settings: Mapping[str, Any], space: Space) -> list[TrialRecord]:
    """Return the trials that a search with these settings took over, with the one metric that counts; maybe none."""
    return [
        TrialRecord(
            each["number"],
            space.complete(each["point"]),
            started=0.0,
            point=each["point"],
            state=each["state"],
            message=each["message"],
            epochs=[{space.metric: value} for value in each["values"]],
            cost=each.get("cost"),
        )
        for each in settings.get("warm_start", {"trials": []})["trials"]
    ]


def _with_costs(trials: Sequence[TrialRecord], space: Space, form: ImageForm) -> list[TrialRecord]:
    """Return the trials with their cost in `space`, measured once for each network where it is not known."""
    assert space.cost is not None
    measure, found = measure_of(space.cost, form), list[TrialRecord]()
    for trial in trials:
        cost = cost_of(trial.parameters, [trial, *found], fields=space.cost_fields, measure=measure)
        found.append(replace(trial, cost=cost))
    return found
