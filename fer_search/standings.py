"""How the race of a search stands, from what is on disk: all that who only looks needs of it."""

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal, TrialRecord
from fer_search.runs import RACE, SETTINGS, read_settings
from fer_search.tuning.race import RaceState, Standing, entrants
from fer_search.tuning.select import leaderboard
from fer_search.tuning.space import Space

MIN_SEEDS = 3
FINALISTS = "finalists"


def read_standings(search: Path, space: Space, trials: Sequence[TrialRecord]) -> list[Standing]:
    """Return how the race of a search stands; empty where there is none."""
    directory = search / RACE
    if not (directory / JOURNAL).exists():
        return []
    race = read_settings(directory, kind=RACE)
    parameters = {trial.number: trial.parameters for trial in trials if trial.number in race["entrants"]}
    return race_state(directory, space, parameters, race["max_seeds"]).standings()


def missing_entrants(search: Path, space: Space, trials: Sequence[TrialRecord]) -> list[int]:
    """Return the complete trials that are not in the race of a search but better there than one of its best.

    There are such trials where the search went on after its race, which says nothing of them. Of a search with a cost
    they are those that a race would begin with now instead.
    """
    if not (search / RACE / SETTINGS).exists():
        return []
    raced = set(read_settings(search / RACE, kind=RACE)["entrants"])
    if space.cost is not None:
        top = len(raced - {0}) or 1
        return [number for number in entrants(trials, metric=space.metric, top=top, front=True) if number not in raced]
    order = [trial.number for trial in leaderboard(trials, metric=space.metric) if trial.state == "COMPLETE"]
    chosen = [place for place, number in enumerate(order) if number in (raced - {0} or raced)]
    return [number for number in order[: max(chosen, default=0)] if number not in raced]


def finalist_directory(race: Path, trial: int) -> Path:
    """Return where the files of a race's entrant are."""
    return race / FINALISTS / f"trial_{trial:05d}"


def race_state(directory: Path, space: Space, parameters: dict[int, dict[str, Any]], max_seeds: int) -> RaceState:
    """Return the race in a directory, of entrants with these parameters, as its journal has it."""
    return RaceState(
        parameters,
        Journal(directory / JOURNAL),
        metric=space.metric,
        horizon=space.horizon,
        seed=space.seed,
        min_seeds=MIN_SEEDS,
        max_seeds=max_seeds,
    )
