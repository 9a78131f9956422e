"""A search of anybody's objective: a directory with its settings and its journal. Knows nothing of faces."""

import json
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fer_search.errors import InvalidInput, problem
from fer_search.files import read_toml
from fer_search.follower import followed
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Event, Journal, read_journal
from fer_search.runs import SETTINGS, is_taken, locked, read_settings, write_json
from fer_search.search_result import SearchResult
from fer_search.tuning.connection import Resources, check_resources, connected
from fer_search.tuning.limit import NO_LIMIT, Budget
from fer_search.tuning.objective import Objective
from fer_search.tuning.run import run_trials
from fer_search.tuning.space import Space
from fer_search.tuning.space_file import read_space
from fer_search.tuning.state import SearchState

KIND = "objective"
ONE_CPU = Resources()


def optimize(
    objective: Objective,
    space: Path | Mapping[str, Any],
    *,
    defaults: Mapping[str, Any],
    directory: Path,
    resources: Resources = ONE_CPU,
    address: str | None = None,
    budget: Budget = NO_LIMIT,
    follow: Callable[[Event], None] | None = None,
) -> SearchResult:
    """Search a space for the parameters with which `objective` reports the highest value.

    `space` is a space file or its content (search_spaces/README.md has the format), whose `[search]` names the `metric`
    that every report holds, and the `resource` if that is not `epochs`: the parameter that says after how many reports
    a trial is complete. `defaults` are the first trial's parameters, all that there are: their types are those of the
    space's values, and the objective gets them with what the trial changes. `resources` are what a trial occupies, in
    CPUs and GPUs, on this machine or on the Ray cluster at `address`, which must be able to import the objective.

    Everything is in `directory`, and the same call goes on there after an interruption, a kill, a spent `budget`, or
    with more `num_trials`. `follow` is called with every event of its journal as it happens. Raises InvalidInput
    before any work starts: for a space that is wrong, for one that is not that of the search there, and where no node
    can run a trial.
    """
    source = space if isinstance(space, Path) else Path("space")
    table = read_toml(space) if isinstance(space, Path) else dict(space)
    checked = _read(table, defaults, source)
    settings = _settings(table, defaults, checked.num_trials)
    directory = directory.resolve()
    if is_taken(directory):
        _check_same(directory, settings)
    journal = Journal(directory / JOURNAL)
    if not SearchState(checked, journal).finished:
        budget.check(journal, gpus=resources.gpus)
        with connected(address):
            check_resources(resources)
            with locked(directory), followed(journal.path, follow):
                write_json(directory / SETTINGS, settings)
                state = SearchState(checked, Journal(journal.path))  # anew, now that no other process can write to it
                run_trials(objective, state, directory, resources=resources, address=address, budget=budget)
    return SearchResult(directory, settings, checked, read_journal(journal.path))


def _read(table: Mapping[str, Any], defaults: Mapping[str, Any], source: Path) -> Space:
    search = table.get("search")
    metric = search.get("metric") if isinstance(search, Mapping) else None
    if not isinstance(metric, str):
        rule = "must name what the objective reports, of which more is better"
        raise InvalidInput(problem(source, "search.metric", rule, metric))
    return read_space(table, source=source, defaults=defaults, check=lambda _: [], metrics=[metric])


def _settings(table: Mapping[str, Any], defaults: Mapping[str, Any], num_trials: int) -> dict[str, Any]:
    """Return what is on record of a search, as it is read again."""
    search = {key: value for key, value in table["search"].items() if key != "num_trials"}
    asked = {"kind": KIND, "space": {**table, "search": search}, "defaults": dict(defaults), "num_trials": num_trials}
    settings: dict[str, Any] = json.loads(json.dumps(asked))
    return settings


def _check_same(directory: Path, settings: Mapping[str, Any]) -> None:
    """Raise InvalidInput unless the search there is this one, with no more trials than are asked for."""
    there = read_settings(directory, kind=KIND)
    rule = "must be that of the search there (remove the directory to start anew)"
    problems = [
        problem(directory, key, rule, settings[key]) for key in ("space", "defaults") if settings[key] != there[key]
    ]
    if settings["num_trials"] < there["num_trials"]:
        rule = f"must be at least the {there['num_trials']} that the search there has"
        problems.append(problem(directory, "search.num_trials", rule, settings["num_trials"]))
    if problems:
        raise InvalidInput(problems)
