"""One training as a run on disk, from the recipe to the figures of the weights that search-validation chose."""

from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
import torch

from fer_search.atomic import replacing
from fer_search.data.faces import Faces
from fer_search.data.fer2013 import load_faces
from fer_search.data.splits import Splits
from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe, class_problems, soft_label_problems
from fer_search.record import (
    Follow,
    check_fingerprint,
    check_soft_labels,
    describe_data,
    package_versions,
    recorded,
    split_for,
)
from fer_search.runs import (
    FIGURES,
    LOGITS,
    RESULT,
    RUNS,
    SETTINGS,
    is_taken,
    read_json,
    read_settings,
    run_directory,
    write_json,
)
from fer_search.tracking_uri import check_uri, local_store
from fer_search.training.backbone import backbone_problems
from fer_search.training.leak_probe import leak_probe
from fer_search.training.measurement import Logits, measure_training
from fer_search.training.run import WEIGHTS, load_model, read_choice, train_to_end
from fer_search.training.step import precision_of
from fer_search.training.trainer import Trainer, choose_device


def train(
    recipe: Recipe,
    *,
    name: str,
    data: str = "synthetic",
    soft_labels: Path | None = None,
    tracking_uri: str | None = None,
    runs: Path = RUNS,
    follow: Follow | None = None,
) -> dict[str, Any]:
    """Train one recipe to the end and return its figures; the same call goes on after an interruption. Loads no Ray.

    `data`, `soft_labels`, `tracking_uri`, `runs` and `follow` are those of `search`, `name` is that of the training's
    directory. The figures of each split, under `metrics`, are those of training.metrics.evaluate: accuracies and their
    95 % intervals are shares, from 0 to 1. Raises InvalidInput before any work starts, FloatingPointError where the
    training diverges.
    """
    from fer_search.presentation import present_training  # MLflow

    directory = run_directory(runs, name)
    if is_taken(directory):
        read_settings(directory, kind="train")
    uri = tracking_uri or local_store(runs)
    check_uri(uri)
    if soft_labels is not None and recipe.soft_label_weight == 0:
        rule = "must not be given, since it has no effect while soft_label_weight is 0"
        raise InvalidInput(problem("command line", "soft-labels", rule, str(soft_labels)))
    faces = load_faces(data)
    splits = split_for(faces, recipe, soft_labels=soft_labels)
    found = run_training(
        recipe, directory, kind="train", title=name, data=data, faces=faces, splits=splits, soft_labels=soft_labels,
        tracking_uri=uri, tags={}, follow=follow,
    )  # fmt: skip
    write_figures(directory)
    present_training(directory)
    return found


def run_training(
    recipe: Recipe,
    directory: Path,
    *,
    kind: str,
    title: str,
    data: str,
    faces: Faces,
    splits: Splits,
    soft_labels: Path | None,
    tracking_uri: str,
    tags: dict[str, str],
    follow: Follow | None,
) -> dict[str, Any]:
    """Train `recipe` to its end in `directory`, or go on with the training there, and return its figures.

    `splits` are of the `faces` that `data` names, with the soft labels of that file if there is one. Raises
    InvalidInput where `directory` holds the training of another recipe or other data.
    """
    settings = training_settings(
        recipe, directory, kind=kind, data=data, faces=faces, splits=splits, soft_labels=soft_labels,
        tracking_uri=tracking_uri, tags=tags,
    )  # fmt: skip
    if (directory / RESULT).exists():
        return read_json(directory / RESULT)
    trainer = Trainer(recipe, splits.fit, splits.validation, device=choose_device())
    with recorded(directory, settings, title=title, tags=tags, follow=follow) as outcome:
        train_to_end(trainer, directory)
        outcome.finished = True
    return measure(trainer, directory, splits, data=settings["data"])


def training_settings(
    recipe: Recipe,
    directory: Path,
    *,
    kind: str,
    data: str,
    faces: Faces,
    splits: Splits,
    tracking_uri: str,
    tags: dict[str, str],
    soft_labels: Path | None = None,
) -> dict[str, Any]:
    """Return the settings of the training in `directory`, or those of a new one; nothing is written.

    Raises InvalidInput where `directory` holds the training of another recipe or other data, for a backbone that there
    is not, or for settings that are about a class, or about soft labels, which the data has not.
    """
    values = recipe.model_dump()
    found = [*backbone_problems(recipe.backbone), *class_problems(values, faces.classes)]
    if found := [*found, *soft_label_problems(values, given=splits.fit.soft_labels is not None)]:
        raise InvalidInput([f"recipe: {line}" for line in found])
    if not (directory / SETTINGS).exists():
        return {
            "kind": kind,
            "search_id": uuid4().hex,
            "recipe": values,
            "tracking_uri": tracking_uri,
            "tags": tags,
            "data": describe_data(data, faces, splits, soft_labels=soft_labels),
            "versions": package_versions(),
        }
    settings = read_settings(directory, kind=kind)
    asked = {**values, "tracking_uri": tracking_uri}
    stored = Recipe.stored(settings["recipe"], source=directory / SETTINGS)
    there = {**stored.model_dump(), "tracking_uri": settings["tracking_uri"]}
    rule = "must be {!r}, as in the training there (remove the directory to start anew)"
    if different := [key for key in asked if asked[key] != there[key]]:
        raise InvalidInput([problem(directory, key, rule.format(there[key]), asked[key]) for key in different])
    check_fingerprint(faces, settings)
    check_soft_labels(soft_labels, settings)
    return settings


def train_and_measure(recipe: Recipe, directory: Path, splits: Splits, *, data: dict[str, Any], device: str) -> None:
    """Train `recipe` to its end in `directory` from where it is and write its figures, where others keep the record."""
    trainer = Trainer(recipe, splits.fit, splits.validation, device=torch.device(device))
    train_to_end(trainer, directory)
    measure(trainer, directory, splits, data=data)


def measure(trainer: Trainer, directory: Path, splits: Splits, *, data: dict[str, Any]) -> dict[str, Any]:
    """Write the figures of the weights that search-validation chose, and return them; `data` is put beside them."""
    recipe, choice = trainer.recipe, read_choice(directory)
    assert choice is not None, "the training has ended"
    network = load_model(recipe, directory / WEIGHTS, trainer.form).to(trainer.device)
    prediction, metrics, logits = measure_training(network, splits)
    _write_logits(directory, logits)
    result = {
        "recipe": recipe.model_dump(),
        "chosen": asdict(choice),
        "prediction": asdict(prediction),
        "precision": precision_of(recipe, trainer.device),
        "trained_on": {"device": trainer.device.type, "num_threads": torch.get_num_threads()},
        "data": data,
        "metrics": metrics,
        "leak_probe": _probe_leak(recipe, trainer.form.classes),
    }
    write_json(directory / RESULT, result)
    return result


def write_figures(training: Path) -> None:
    """Draw what the network of the finished training in a directory confuses, as confusion.png and recall.png in its
    `figures`, unless that is drawn.
    """
    if (training / FIGURES).exists():
        return
    from fer_search.html_report.training_plots import confusion, recall

    result = read_json(training / RESULT)
    public, label = result["metrics"]["public"], result["data"]["public_label"]
    with replacing(training / FIGURES) as temporary:
        temporary.mkdir()
        confusion(public[result["prediction"]["views"]], split=label).save(temporary)
        recall(public, split=label).save(temporary)


def _write_logits(directory: Path, logits: dict[str, Logits]) -> None:
    arrays = {f"{split}/{views}": values for split, by_views in logits.items() for views, values in by_views.items()}
    with replacing(directory / LOGITS) as temporary, temporary.open("wb") as file:
        np.savez(file, **arrays)  # type: ignore[arg-type]  # numpy's stub takes a name for its option


def _probe_leak(recipe: Recipe, classes: Sequence[str]) -> dict[str, Any] | None:
    """Measure how much the augmentation gives the class away, where it is applied to some more often than others."""
    if recipe.randaugment_magnitude == 0 or len(set(recipe.randaugment_probabilities(classes))) == 1:
        return None
    return asdict(leak_probe(recipe, classes))
