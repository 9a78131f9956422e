"""Long trainings of a search's trial, one seed or several at once, each a run on disk that goes on after a kill."""

import logging
from collections import Counter, deque
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import ray
import torch
from ray.exceptions import LocalRayletDiedError, NodeDiedError, WorkerCrashedError

from fer_search.data.splits import Splits
from fer_search.errors import InvalidInput, first_line, problem
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import TrialRecord
from fer_search.long_trainings import RETRAIN, LongTraining, read_retraining
from fer_search.recipe import Recipe, absent_class_fields
from fer_search.record import Follow, data_of, form_of, numbered, recorded, soft_labels_of
from fer_search.runs import RESULT
from fer_search.training.optimization import check_rise
from fer_search.training.pretrained import initial_model
from fer_search.training.trainer import num_steps
from fer_search.trainings import run_training, train_and_measure, training_settings
from fer_search.tuning.connection import Resources, check_resources, connected
from fer_search.tuning.faults import MAX_FAILURES, is_loss_of_node

logger = logging.getLogger(__name__)


def fresh_seeds(seed: int, count: int) -> list[int]:
    """Return the seeds of long trainings: the same for every trial of a search, and in none of its short ones."""
    return [int(state >> 1) for state in np.random.SeedSequence([seed, *b"retrain"]).generate_state(count)]


def run_retraining(
    directory: Path,
    trial: TrialRecord,
    settings: Mapping[str, Any],
    *,
    title: str,
    overrides: Mapping[str, Any],
    seeds: Sequence[int],
    tags: dict[str, str],
    follow: Follow | None,
) -> list[LongTraining]:
    """Train a trial's recipe with each seed in `directory`, or go on there, and return all that is finished there.

    One seed of a local search trains in this process; several, or any of a cluster's search, at once on what its trials
    ran on. Of several, those that diverge are left out with a warning. Raises InvalidInput before any work, and
    FloatingPointError where none came through.
    """
    if not seeds:
        raise InvalidInput(problem("command line", "seeds", "must be at least 1", 0))
    if len(seeds) > 1 and "seed" in overrides:
        rule = "must not be given beside --seeds, which takes fresh ones"
        raise InvalidInput(problem("command line", "seed", rule, overrides["seed"]))
    recipe = Recipe.stored(trial.parameters, source=directory.parent / JOURNAL)
    # What the search's trials had for classes that the data has not was without effect, whatever that of the others.
    absent = absent_class_fields(form_of(settings["data"]).classes)
    common = dict.fromkeys(absent, overrides.get("randaugment_probability", recipe.randaugment_probability))
    recipes = [recipe.replace({"seed": seed, **common, **overrides}, source="retrain") for seed in seeds]
    directories = [directory, *(directory / f"seed_{index}" for index in range(1, len(seeds)))]
    tags = {**tags, "trial": str(trial.number)}
    source, uri, soft_labels = settings["data"]["source"], settings["tracking_uri"], soft_labels_of(settings)
    faces, splits = data_of(settings, recipes[0])
    numbers = ", ".join(str(each.seed) for each in recipes)
    logger.info("%s: trial %d for %d epochs, seeds %s", title, trial.number, recipes[0].epochs, numbers)
    if len(seeds) == 1 and settings["address"] is None:
        run_training(
            recipes[0], directory, kind=RETRAIN, title=title, data=source, faces=faces, splits=splits,
            soft_labels=soft_labels, tracking_uri=uri, tags=tags, follow=follow,
        )  # fmt: skip
        return read_retraining(directory)
    runs = [
        training_settings(
            each,
            path,
            kind=RETRAIN,
            data=source,
            faces=faces,
            splits=splits,
            soft_labels=soft_labels,
            tracking_uri=uri,
            tags=tags,
        )
        for path, each in zip(directories, recipes, strict=True)
    ]
    initial_model(recipes[0], faces.form)
    check_rise(recipes[0], num_steps(len(splits.fit), recipes[0]))
    todo = {index: runs[index] for index, path in enumerate(directories) if not (path / RESULT).exists()}
    if not todo:
        return read_retraining(directory)
    resources = Resources(**settings["resources"])
    with connected(settings["address"]), ExitStack() as records:
        check_resources(resources)
        outcomes = {
            index: records.enter_context(
                recorded(
                    directories[index],
                    run,
                    title=f"{title}, seed {index}" if index else title,
                    tags=tags,
                    follow=numbered(follow, index),
                )
            )
            for index, run in todo.items()
        }
        work = {index: (recipes[index], directories[index], run["data"]) for index, run in todo.items()}
        diverged = _train_at_once(work, splits, resources)
        for index, outcome in outcomes.items():
            outcome.finished = index not in diverged
    found = read_retraining(directory)
    if not found:
        raise FloatingPointError("; ".join(f"seed {index}: {message}" for index, message in sorted(diverged.items())))
    for index, message in sorted(diverged.items()):
        logger.warning("%s: diverged and is left out: %s", directories[index], message)
    return found


def _train_at_once(
    work: Mapping[int, tuple[Recipe, Path, dict[str, Any]]], splits: Splits, resources: Resources
) -> dict[int, str]:
    """Run the trainings as Ray tasks, as many at once as fit, and return the messages of those that diverged.

    A task whose worker dies goes on from its own checkpoint, MAX_FAILURES times; one whose node dies, always.
    """
    task = ray.remote(num_cpus=resources.cpus, num_gpus=resources.gpus, max_retries=0)(_train)
    shared = ray.put(splits)
    waiting = deque(work.items())
    running: dict[Any, int] = {}
    crashes: Counter[int] = Counter()
    diverged: dict[int, str] = {}
    while waiting or running:
        while waiting and (not resources.max_concurrent or len(running) < resources.max_concurrent):
            index, (recipe, directory, data) = waiting.popleft()
            running[task.remote(recipe, directory, shared, data, resources)] = index
        (done,), _ = ray.wait(list(running))
        index = running.pop(done)
        try:
            message = ray.get(done)
        except (WorkerCrashedError, NodeDiedError, LocalRayletDiedError) as error:
            crashes[index] += not is_loss_of_node(error)
            if crashes[index] > MAX_FAILURES:
                raise
            logger.warning("seed %d goes on from its last epoch after: %s", index, first_line(error))
            waiting.append((index, work[index]))
            continue
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, OSError):
                raise error.cause from None  # Ray's copy does not say which file, and what was wrong with it
            raise
        if message is not None:
            diverged[index] = message
    return diverged


def _train(recipe: Recipe, directory: Path, splits: Splits, data: dict[str, Any], resources: Resources) -> str | None:
    torch.set_num_threads(resources.cpus)
    try:
        train_and_measure(recipe, directory, splits, data=data, device="cuda" if resources.gpus else "cpu")
    except FloatingPointError as error:
        return str(error)
    return None
