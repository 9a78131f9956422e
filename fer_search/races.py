"""The race of a search's best trials as a run on disk, and in MLflow beside the search."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from fer_search.data.splits import Splits
from fer_search.errors import InvalidInput, problem
from fer_search.journal import TrialRecord
from fer_search.recipe import Recipe
from fer_search.record import Follow, data_of, package_versions, recorded
from fer_search.runs import RACE, SETTINGS, read_settings
from fer_search.standings import MIN_SEEDS, race_state
from fer_search.training.objective import TrainingObjective
from fer_search.tuning.connection import Resources
from fer_search.tuning.race import Standing, entrants
from fer_search.tuning.run import run_trials
from fer_search.tuning.space import Space


@dataclass(frozen=True)
class RaceResult:
    """How the entrants stand, the leader first, and whether the race has `finished` or was interrupted."""

    standings: list[Standing]
    finished: bool


def run_race(
    search: Path,
    settings: dict[str, Any],
    space: Space,
    trials: Sequence[TrialRecord],
    *,
    top: int,
    max_seeds: int,
    follow: Follow | None,
) -> RaceResult:
    """Race the `top` trials of the search in the directory `search`, or go on with the race there.

    All are trained with one OneCycle, as the winner will be: restarts serve the rungs of a search, and a race has none.
    Each seed draws first weights of its own, whatever the trial had: a race's noise must hold theirs too.
    Raises InvalidInput where the race there has other entrants, as after a longer search, or another number of seeds.
    """
    if max_seeds < MIN_SEEDS:
        rule = f"must be at least {MIN_SEEDS}: fewer say nothing about the noise"
        raise InvalidInput(problem("command line", "seeds", rule, max_seeds))
    parameters = entrants(trials, metric=space.metric, top=top, front=space.cost is not None)
    asked = {"entrants": sorted(parameters), "max_seeds": max_seeds}
    directory = search / RACE
    if (directory / SETTINGS).exists():
        race = read_settings(directory, kind=RACE)
        rule = "must be {!r}, as in the race there (remove the directory to start anew)"
        if different := [key for key in asked if asked[key] != race[key]]:
            raise InvalidInput([problem(directory, key, rule.format(race[key]), asked[key]) for key in different])
    else:
        taken = ("tracking_uri", "resources", "data")
        race = {
            "kind": RACE,
            "search_id": uuid4().hex,
            "versions": package_versions(),
            **asked,
            **{key: settings[key] for key in taken},
        }
    _, splits = data_of(settings, Recipe.build(space.parameters))
    resources = Resources(**race["resources"])
    parameters = {number: {**values, "restarts": [], "weights_seed": 0} for number, values in parameters.items()}
    with recorded(
        directory,
        race,
        title=f"{search.name} race",
        tags={"search": search.name, "race_of": settings["search_id"]},
        follow=follow,
        parent_params={"max_seeds": max_seeds, "horizon": space.horizon},
        note=f"The race of search **{search.name}**: the trials {', '.join(map(str, sorted(parameters)))} again with "
        "fresh seeds.",
    ) as outcome:
        state = race_state(
            directory, space, parameters, max_seeds
        )  # now that no other process can write to its journal
        objective = objective_on(splits, resources)
        outcome.finished = run_trials(objective, state, directory, resources=resources, address=settings["address"])
    return RaceResult(state.standings(), outcome.finished)


def objective_on(splits: Splits, resources: Resources) -> TrainingObjective:
    """Return the training on these faces, on what a trial is given."""
    device = "cuda" if resources.gpus else "cpu"
    return TrainingObjective(splits.fit, splits.validation, device=device, threads=resources.cpus)
