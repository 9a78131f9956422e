"""What a search needs before it can start, and what it will cost."""

import logging
import shutil
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Self

import numpy as np
import torch

from fer_search.checkpoints import CHECKPOINTS
from fer_search.data.faces import FER2013, Faces, ImageForm
from fer_search.data.fer2013 import load_faces
from fer_search.data.splits import Splits
from fer_search.errors import InvalidInput, problem
from fer_search.files import read_toml
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.spaces import check_classes, check_corners, check_soft_label_weight, check_space, largest_checkpoint
from fer_search.training.trainer import Trainer
from fer_search.tuning.connection import Resources, default_gpus
from fer_search.tuning.expectation import expected_epochs, expected_trials
from fer_search.tuning.retention import most_checkpoints
from fer_search.tuning.space import Space
from fer_search.tuning.state import NUM_KEPT_FINALISTS

logger = logging.getLogger(__name__)

NUM_CALIBRATION_STEPS = 8


@dataclass(frozen=True)
class Plan:
    """A checked space (`table` as it was asked for) and the faces that its trials see, with the file of their soft
    labels if there is one.
    """

    table: dict[str, Any]
    space: Space
    faces: Faces
    splits: Splits
    soft_labels: Path | None = None


@dataclass(frozen=True)
class DiskNeed:
    """What the checkpoints of a search take, each of at most so many bytes.

    `waiting` trials may wait at rungs at once; of those that have ended the best keep one for good.
    """

    checkpoint_bytes: int
    trials: int
    waiting: int

    @classmethod
    def of(cls, space: Space, form: ImageForm = FER2013) -> Self:
        """Return it for a search of this space on images of this form."""
        waiting = space.num_trials if space.scheduler == "promotion" else 0
        return cls(largest_checkpoint(space, form), space.num_trials, waiting)

    def most(self, num_workers: int) -> int:
        """Return the most bytes at any moment while so many trials run at once."""
        return self.checkpoint_bytes * most_checkpoints(
            running=num_workers, waiting=self.waiting, finalists=NUM_KEPT_FINALISTS, trials=self.trials
        )

    @property
    def kept(self) -> int:
        """The bytes that stay after the search."""
        return self.checkpoint_bytes * min(NUM_KEPT_FINALISTS, self.trials)

    def announce(self, directory: Path, *, num_workers: int) -> None:
        """Say what the search in `directory` may take while it runs, or warn where its disk has less."""
        there = sum(file.stat().st_size for file in (directory / CHECKPOINTS).rglob("*") if file.is_file())
        most, free = self.most(num_workers), shutil.disk_usage(directory).free + there
        enough = most <= free
        logger.log(
            logging.INFO if enough else logging.WARNING,
            "checkpoints take at most %.2f GB while %d trials run at once, %.2f GB afterwards; %s has %s%.2f GB",
            most / 1e9, num_workers, self.kept / 1e9, directory, "" if enough else "only ", free / 1e9,
        )  # fmt: skip


@dataclass(frozen=True)
class Preview:
    """What a search will take, from a few steps of its first trial's training.

    `reached` holds how many trials are expected to reach each epoch where they are compared, the horizon last.
    """

    reached: dict[int, int]
    epochs: int
    seconds_per_epoch: float
    disk: DiskNeed

    @property
    def hours(self) -> float:
        """The hours of one worker."""
        return self.epochs * self.seconds_per_epoch / 3600


def prepare(
    space_file: Path,
    *,
    data: str,
    overrides: Mapping[str, Any] | None,
    num_trials: int | None,
    soft_labels: Path | None = None,
) -> Plan:
    """Read and check a space file, with `overrides` in its `[base]`, and the data; raises InvalidInput."""
    table, space = read_space(space_file, overrides=overrides, num_trials=num_trials)
    recipe = Recipe.build(space.complete(space.first_point), source=space_file)
    check_soft_label_weight(space, soft_labels=soft_labels, source=space_file)
    faces = load_faces(data)
    check_classes(space, faces.classes, source=space_file)
    splits = split_for(faces, recipe, soft_labels=soft_labels)
    check_corners(space, faces.form, num_images=len(splits.fit), source=space_file)
    return Plan(table, space, faces, splits, soft_labels)


def read_space(
    space_file: Path, *, overrides: Mapping[str, Any] | None, num_trials: int | None
) -> tuple[dict[str, Any], Space]:
    """Read and check a space file as `prepare` does, without data; returns its table as it was asked for, too."""
    table = read_toml(space_file)
    check_space(table, source=space_file)  # as it stands, so that a message about an override is about that alone
    table["base"] = {**table.get("base", {}), **(overrides or {})}
    if num_trials is not None:
        table["search"] = {**table.get("search", {}), "num_trials": num_trials}
    return table, check_space(table, source=space_file)


def enlarge(settings: dict[str, Any], space: Space, num_trials: int) -> tuple[dict[str, Any], Space]:
    """Return a search's settings and space with more trials; raises InvalidInput if they are not more."""
    if num_trials <= space.num_trials:
        rule = f"must be more than the {space.num_trials} that the search has"
        raise InvalidInput(problem("command line", "trials", rule, num_trials))
    table = settings["space"]
    table = {**table, "search": {**table.get("search", {}), "num_trials": num_trials}}
    return {**settings, "space": table}, replace(space, num_trials=num_trials)


def search_settings(settings: Mapping[str, Any]) -> dict[str, Any]:
    """Return how a search was to search, but for the number of its trials, which may grow."""
    return {key: value for key, value in settings["space"].get("search", {}).items() if key != "num_trials"}


def preview(plan: Plan, *, device: torch.device, threads: int) -> Preview:
    """Train the first trial's recipe for a few steps and return what the whole search would take."""
    torch.set_num_threads(threads)
    recipe = Recipe.build(plan.space.complete(plan.space.first_point))
    return Preview(
        expected_trials(plan.space),
        expected_epochs(plan.space),
        seconds_per_epoch(recipe, plan.splits, device=device),
        DiskNeed.of(plan.space, plan.faces.form),
    )


def seconds_per_epoch(recipe: Recipe, splits: Splits, *, device: torch.device) -> float:
    """Train `recipe` for a few steps and return how long one of its epochs takes, with what judges it."""
    fit, validation = splits.fit, splits.validation
    seen = np.arange(min(len(fit), NUM_CALIBRATION_STEPS * recipe.batch_size * recipe.accumulation))
    judged = np.arange(min(len(validation), len(seen)))
    short = recipe.replace(
        {"epochs": 2, "restarts": [], "sam_interval": min(recipe.sam_interval, NUM_CALIBRATION_STEPS)}
    )
    _, report = Trainer(short, fit.take(seen), validation.take(judged), device=device)  # the first one warms up
    training = len(fit) / report.metrics["images_per_second"]
    judging = report.metrics["epoch_seconds"] - len(seen) / report.metrics["images_per_second"]
    return training + judging * len(validation) / len(judged)


def default_resources() -> Resources:
    """Return what a trial occupies where nobody said so: a GPU where this machine has one, else one CPU."""
    return Resources(cpus=1, gpus=1.0 if torch.cuda.is_available() else 0.0)


def chosen_resources(cpus: int, gpus: float | None, max_concurrent: int, address: str | None = None) -> Resources:
    """Return what a trial is to occupy; where no GPUs were named, one if this machine, or the cluster, has any."""
    if gpus is None:
        gpus = default_gpus(address, cpus=cpus) if address else default_resources().gpus
    return Resources(cpus, gpus, max_concurrent)
