"""The pipeline as prose: search, resume, race, retrain, export. The file to read first.

    data -> recipe + space -> search (many short trainings) -> winner -> retrain -> figures -> bundle

This is the only module that knows both the training and the search; each works without the other: a single training is
`trainings.train`, and `assessment.evaluate` says what a bundle is worth. Every function takes `runs`, the directory
that all searches and trainings live in.
"""

import logging
from collections.abc import Mapping, Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import torch

from fer_search.bundle import export_bundle
from fer_search.combination import Kind, export_combination
from fer_search.errors import InvalidInput, problem
from fer_search.finalists import write_finalists
from fer_search.long_trainings import best_of_seeds, retrain_directory, seeds_summary, training_to_export
from fer_search.packings import PackingPlan
from fer_search.packings import measure as measure_packing
from fer_search.presentation import present
from fer_search.races import RaceResult, run_race
from fer_search.recipe import Recipe
from fer_search.record import Follow, data_of, describe_data, package_versions
from fer_search.registry import FOLDERS, register_run
from fer_search.retraining import fresh_seeds, run_retraining
from fer_search.runs import RACE, RUNS, existing_run, is_taken, run_directory
from fer_search.search_result import SearchResult, check_version, read_search
from fer_search.search_run import run_search
from fer_search.searches import Plan, Preview, default_resources, enlarge, prepare, preview
from fer_search.standings import missing_entrants
from fer_search.tracking_uri import check_uri, local_store
from fer_search.trainings import write_figures
from fer_search.tuning.connection import Resources
from fer_search.tuning.limit import NO_LIMIT, Budget
from fer_search.tuning.select import select_trial
from fer_search.warm_start import take_over

logger = logging.getLogger(__name__)

BUNDLE = FOLDERS["training"]


def search(
    space_file: Path,
    *,
    name: str,
    data: str = "synthetic",
    soft_labels: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    num_trials: int | None = None,
    resources: Resources | None = None,
    address: str | None = None,
    tracking_uri: str | None = None,
    budget: Budget = NO_LIMIT,
    warm_start: str | None = None,
    runs: Path = RUNS,
    follow: Follow | None = None,
) -> SearchResult:
    """Search a space for the recipe with the best search-validation result, until it is done or the budget is spent.

    `space_file` is in the format of search_spaces/README.md; `overrides` replace values of its `[base]`, `num_trials`
    that of its `[search]`. The trials see only the fit and search-validation parts of Training in `data` (see
    load_faces), and of `soft_labels` (a file that label-noise or distill wrote) those of the fit images; how much they
    count is the recipe's `soft_label_weight`. The searcher learns from those of the search `warm_start` too.
    `resources` are what a trial occupies in CPUs and GPUs, by default one GPU where there is one; `address` is that of
    a running Ray cluster, by default this machine. `budget` is in hours, epochs and GPU hours. All is kept in the
    directory `name` of `runs`, and sent to MLflow at `tracking_uri`, by default an SQLite file there. `follow` is
    called with every event of the journal as it happens.

    Raises InvalidInput before any work starts, with all problems, and OSError, every finished epoch being on disk,
    where storage fails. What was measured of the search itself: docs/search_quality.md.
    """
    directory = new_search(name, runs=runs)
    plan = prepare(space_file, data=data, soft_labels=soft_labels, overrides=overrides, num_trials=num_trials)
    uri = tracking_uri or local_store(runs)
    check_uri(uri)
    resources = resources or default_resources()
    settings = {
        "kind": "search",
        "search_id": uuid4().hex,
        "space_file": str(space_file),
        "space": plan.table,
        "parameters": plan.space.parameters,
        "resources": asdict(resources),
        "address": address,
        "tracking_uri": uri,
        "data": describe_data(data, plan.faces, plan.splits, soft_labels=soft_labels),
        "versions": package_versions(),
    }
    if warm_start is not None:
        settings["warm_start"] = _take_over(warm_start, plan, runs)
    run_search(directory, settings, plan.space, plan.splits, budget=budget, follow=follow)
    return _presented(name, runs)


def new_search(name: str, *, runs: Path = RUNS) -> Path:
    """Return the directory of a search that is to begin; raises InvalidInput where there is one of this name."""
    directory = run_directory(runs, name)
    if is_taken(directory):
        raise InvalidInput(problem(directory, "name", "must be new (to go on with it: fer-search resume)", name))
    return directory


def preview_search(
    space_file: Path,
    *,
    data: str = "synthetic",
    soft_labels: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    num_trials: int | None = None,
    resources: Resources | None = None,
    warm_start: str | None = None,
    runs: Path = RUNS,
) -> Preview:
    """Check all that `search` checks but the cluster, and return what the search would take."""
    plan = prepare(space_file, data=data, soft_labels=soft_labels, overrides=overrides, num_trials=num_trials)
    if warm_start is not None:
        _take_over(warm_start, plan, runs)
    resources = resources or default_resources()
    return preview(plan, device=torch.device("cuda" if resources.gpus else "cpu"), threads=resources.cpus)


def plan_packing(
    space_file: Path,
    *,
    data: str = "synthetic",
    soft_labels: Path | None = None,
    overrides: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
    address: str | None = None,
) -> PackingPlan:
    """Measure how many trials of a search are best run at once on a GPU, or on the cores of a machine without one.

    `space_file`, `data`, `soft_labels`, `overrides` and `address` are those of `search`. `resources` say whether trials
    have a GPU, and how many CPU cores each then has. Speeds are in images per second; `chosen.resources` of what is
    returned are those to search with. Raises InvalidInput as `search` does, and where no node is idle.
    """
    plan = prepare(space_file, data=data, soft_labels=soft_labels, overrides=overrides, num_trials=None)
    return measure_packing(plan, resources or default_resources(), address=address)


def resume(
    name: str,
    *,
    num_trials: int | None = None,
    budget: Budget = NO_LIMIT,
    address: str | None = None,
    runs: Path = RUNS,
    follow: Follow | None = None,
) -> SearchResult:
    """Go on with the search `name` in `runs` where it was, on the same data, until it is done or the `budget` is spent.

    It goes on where it ran, or on the cluster at `address`, which may be another one or have moved. A larger
    `num_trials` goes on with a finished one too; what it had stopped stays stopped. `follow` is called with every new
    event. Raises InvalidInput where there is no such search, its data have changed, this version of the package would
    train otherwise or `num_trials` are not more, and OSError where storage fails.
    """
    result = read_search(name, runs=runs)
    check_version(result)
    settings, space = _at(address, result.settings), result.space
    if num_trials is not None:
        settings, space = enlarge(settings, space, num_trials)
    _, splits = data_of(settings, Recipe.build(space.complete(space.first_point)))
    run_search(result.directory, settings, space, splits, budget=budget, follow=follow)
    return _presented(name, runs)


def retrain(
    name: str,
    *,
    epochs: int = 300,
    overrides: Mapping[str, Any] | None = None,
    trial: int | None = None,
    seeds: int = 1,
    address: str | None = None,
    runs: Path = RUNS,
    follow: Follow | None = None,
) -> dict[str, Any]:
    """Train the winner of the search `name`, or the `trial` of this number, afresh and for longer.

    It is trained for so many `epochs`, with so many fresh `seeds`, and with `overrides` of its recipe; `restarts` are
    dropped. With a `weights_seed` in the recipe the seeds share their first weights, and the spread over them is less.
    The weights are those, raw or averaged, of the epoch that did best on search-validation. Returns the figures of the
    seed that did best there, as `train` does, those of all seeds, and the search's `rank_agreement` with long trainings
    (Kendall's tau). It runs where the search ran, or on the cluster at `address`; `runs` and `follow` are those of
    `search`. Raises InvalidInput where there is nothing to train, FloatingPointError where it diverges.
    """
    result = read_search(name, runs=runs)
    if not result.complete and trial is None:
        logger.warning("%s is not complete: this is the winner of the trials so far", name)
    if trial is None and (missed := missing_entrants(result.directory, result.space, result.trials)):
        rule = "trials %s came after the race, and did better than some of its entrants; remove %s to race again"
        logger.warning(rule, missed, result.directory / RACE)
    chosen = result.winner() if trial is None else select_trial(result.trials, trial)
    directory = retrain_directory(result.directory, trial)
    found = run_retraining(
        directory,
        chosen,
        _at(address, result.settings),
        title=f"{name} {'winner' if trial is None else f'trial {trial}'}",
        overrides={"epochs": epochs, "restarts": [], **(overrides or {})},
        seeds=fresh_seeds(result.space.seed, seeds),
        tags={"search": name, "winner_of" if trial is None else "trial_of": result.settings["search_id"]},
        follow=follow,
    )
    for training in found:
        write_figures(training.directory)
    present(result)
    agreement = result.rank_agreement()
    return {
        **best_of_seeds(found).result,
        "seeds": seeds_summary(found),
        "rank_agreement": None if agreement is None else asdict(agreement),
    }


def export(
    name: str,
    *,
    trial: int | None = None,
    combine: Kind | None = None,
    others: Sequence[str] = (),
    bundle: Path | None = None,
    runs: Path = RUNS,
) -> tuple[Path, str | None]:
    """Write the bundle of a search's retrained winner (or `trial`), or of a training, and register it with MLflow.

    `name` is that of the search or training in `runs`, `bundle` the directory to write, by default within it. Of
    several seeds it is the one that did best on search-validation. With `combine` it is a "soup" or an "ensemble" of
    the finished trainings of `name` and of the `others`, searches or trainings, chosen greedily on search-validation.
    Returns the bundle's directory and the registered `name/version`, or None where the registry did not take it.
    Raises InvalidInput where nothing is trained yet or trainings cannot be combined, and NotBetter where the best of
    them alone is not beaten.
    """
    directory = existing_run(runs, name)
    if combine is None:
        if others:
            raise InvalidInput(problem("command line", "with", "must be given with --soup or --ensemble", list(others)))
        training, selection = training_to_export(directory, trial)
        bundle = bundle or directory / (BUNDLE if trial is None else f"{BUNDLE}_{trial:05d}")
        export_bundle(training, bundle, selection=selection)
        return bundle, register_run(bundle, training, is_winner=trial is None and training != directory)
    if trial is not None:
        raise InvalidInput(problem("command line", "trial", f"must not be given with --{combine}", trial))
    bundle = bundle or directory / FOLDERS[combine]
    export_combination(combine, [name, *others], bundle, runs=runs)
    return bundle, register_run(bundle, directory, is_winner=False)


def race(
    name: str,
    *,
    top: int = 5,
    max_seeds: int = 6,
    address: str | None = None,
    runs: Path = RUNS,
    follow: Follow | None = None,
) -> RaceResult:
    """Train the best of a search and its first trial with fresh seeds until it is clear who is best, or that nobody is.

    The `top` trials of the search `name` and its first get one fresh seed a round, three at the least and `max_seeds`
    at the most; who is behind the leader with p < 0.05 is out. Means and intervals are shares, from 0 to 1; the noise
    is pooled over all entrants. The same call goes on after an interruption; `address`, `runs` and `follow` are those
    of `resume`. Raises InvalidInput where no trial can race, or the race there is another one.
    """
    result = read_search(name, runs=runs)
    settings = _at(address, result.settings)
    found = run_race(
        result.directory, settings, result.space, result.trials, top=top, max_seeds=max_seeds, follow=follow
    )
    if found.finished:
        raced = [trial for trial in result.trials if trial.number in {standing.trial for standing in found.standings}]
        metric, source = result.space.metric, settings["data"]["source"]
        write_finalists(result.directory / RACE, raced, metric=metric, source=source)
    present(result)
    return found


def _presented(name: str, runs: Path) -> SearchResult:
    """Read a search that has ended or was stopped, and let MLflow show it as it stands."""
    result = read_search(name, runs=runs)
    present(result)
    return result


def _at(address: str | None, settings: dict[str, Any]) -> dict[str, Any]:
    """Return the settings of a search for the cluster at `address`; None leaves it where it ran."""
    return settings if address is None else {**settings, "address": address}


def _take_over(name: str, plan: Plan, runs: Path) -> dict[str, Any]:
    """Return what a new search takes over from the one called `name`, and say how much that is."""
    first = read_search(name, runs=runs)
    taken = take_over(first.directory, first.settings, first.space, first.trials, plan=plan)
    logger.info("%d trials of %s are taken over, %d left out", len(taken["trials"]), name, taken["left_out"])
    return taken
