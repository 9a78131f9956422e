"""Label noise as a run on disk: what networks that never saw an image say of it, and which labels that speaks against.

The images to train on are divided into folds. One network for each fold learns from the others, and its training is a
run of its own, with a journal, that goes on after a kill. Search-validation chooses the epoch, the views and the
temperature of each as of any training, and is in no fold.

<runs>/<name>/fold_1/            the training without the first fold, and what it says of that fold; and so on
<runs>/<name>/soft_labels.parquet what the networks say of all images to train on
<runs>/<name>/suspects.csv       the images whose labels are suspicious, the most suspicious first
<runs>/<name>/label_noise.html   the page with both
"""

import csv
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_search.atomic import replacing
from fer_search.data.faces import Faces
from fer_search.data.fer2013 import load_faces
from fer_search.data.label_noise import LabelNoise, find_label_noise
from fer_search.data.soft_labels import SoftLabels, write_soft_labels
from fer_search.data.splits import fold_of
from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe
from fer_search.record import Follow, check_fingerprint, describe_data, numbered, package_versions, split_for
from fer_search.runs import RESULT, RUNS, SETTINGS, locked, read_settings, run_directory, write_json
from fer_search.tracking_uri import check_uri, local_store
from fer_search.training.calibration import log_probabilities
from fer_search.training.measurement import ViewChoice, split_logits
from fer_search.training.optimization import check_rise
from fer_search.training.pretrained import initial_model
from fer_search.training.run import WEIGHTS, load_model
from fer_search.training.trainer import choose_device, num_steps
from fer_search.trainings import run_training, training_settings, write_figures

KIND, FOLD = "label-noise", "fold"
SOFT_LABELS = "soft_labels.parquet"
SUSPECTS = "suspects.csv"
PAGE = "label_noise.html"
HELD_OUT = "held_out.npy"
MIN_FOLDS = 2


@dataclass(frozen=True)
class NoiseReport:
    """What is left in `directory`: the images to train on, what was said of each, and what that says of their labels.

    `probabilities` (N, classes) are those of the network that had not learned from the image.
    """

    directory: Path
    fit: Faces
    probabilities: NDArray[np.float32]
    noise: LabelNoise

    @property
    def accuracy(self) -> float:
        """The share of the images for which the most probable class is the label."""
        return float((self.probabilities.argmax(1) == self.fit.labels).mean())

    def suspects(self) -> Iterator[dict[str, Any]]:
        """Yield each suspicious image as a row, the most suspicious first."""
        fit, noise = self.fit, self.noise
        for rank, (image, suggested) in enumerate(zip(noise.suspects, noise.suggested, strict=True), start=1):
            given = fit.labels[image]
            yield {
                "rank": rank,
                "name": str(fit.names[image]),
                "given": fit.classes[given],
                "suggested": fit.classes[suggested],
                "probability_of_given": float(self.probabilities[image, given]),
                "probability_of_suggested": float(self.probabilities[image, suggested]),
                "margin": float(noise.margins[rank - 1]),
            }

    def summary(self) -> dict[str, Any]:
        """Return the estimates, ready for JSON; all shares are from 0 to 1."""
        classes, counts = self.fit.classes, np.bincount(self.fit.labels, minlength=len(self.fit.classes))
        wrong = np.nan_to_num(self.noise.share_of_class)
        return {
            "num_images": len(self.fit),
            "accuracy": self.accuracy,
            "wrong_share": self.noise.share,
            "wrong_share_of_class": dict(zip(classes, map(float, wrong), strict=True)),
            "images_of_class": dict(zip(classes, map(int, counts), strict=True)),
            "classes": list(classes),
            "joint": self.noise.joint.tolist(),
            "num_suspects": len(self.noise.suspects),
        }


def label_noise(
    recipe: Recipe,
    *,
    name: str,
    data: str = "synthetic",
    folds: int = 5,
    tracking_uri: str | None = None,
    runs: Path = RUNS,
    follow: Follow | None = None,
) -> NoiseReport:
    """Train `recipe` without each of so many `folds` of the images to train on; the same call goes on after a kill.

    What is returned, and written to the directory `name` of `runs`, is what each network says of the fold that it has
    not learned from, and which labels that speaks against (confident learning, Northcutt et al. 2021). The soft labels
    there are for `train` and `search`. `data`, `tracking_uri`, `runs` and `follow` are those of `search`. Raises
    InvalidInput before any work starts, FloatingPointError where a training diverges.
    """
    from fer_search.presentation import present_training  # MLflow

    if folds < MIN_FOLDS:
        raise InvalidInput(problem("command line", "folds", f"must be at least {MIN_FOLDS}", folds))
    directory = run_directory(runs, name)
    uri = tracking_uri or local_store(runs)
    check_uri(uri)
    faces = load_faces(data)
    splits = split_for(faces, recipe)
    settings = _settings(directory, recipe, {"folds": folds, "tracking_uri": uri}, faces) or {
        "kind": KIND,
        "recipe": recipe.model_dump(),
        "folds": folds,
        "tracking_uri": uri,
        "data": describe_data(data, faces, splits),
        "versions": package_versions(),
    }
    fold = fold_of(splits.fit, folds=folds, seed=recipe.split_seed)
    others = [replace(splits, fit=splits.fit.take(fold != number)) for number in range(folds)]
    tags, paths = {"label_noise": name}, [directory / f"{FOLD}_{number + 1}" for number in range(folds)]
    for path, each in zip(paths, others, strict=True):
        training_settings(recipe, path, kind=FOLD, data=data, faces=faces, splits=each, tracking_uri=uri, tags=tags)
    initial_model(recipe, faces.form)
    check_rise(recipe, num_steps(min(len(each.fit) for each in others), recipe))
    with locked(directory):
        write_json(directory / SETTINGS, settings)
        probabilities = np.empty((len(splits.fit), len(faces.classes)), dtype=np.float32)
        for number, (path, each) in enumerate(zip(paths, others, strict=True)):
            result = run_training(
                recipe, path, kind=FOLD, title=f"{name} fold {number + 1}", data=data, faces=faces, splits=each,
                soft_labels=None, tracking_uri=uri, tags=tags, follow=numbered(follow, number + 1),
            )  # fmt: skip
            write_figures(path)
            present_training(path)
            probabilities[fold == number] = _held_out(path, recipe, result, splits.fit.take(fold == number))
        found = NoiseReport(directory, splits.fit, probabilities, find_label_noise(probabilities, splits.fit.labels))
        _write(found, recipe, folds=folds, fingerprint=faces.fingerprint())
    return found


def _settings(directory: Path, recipe: Recipe, options: dict[str, Any], faces: Faces) -> dict[str, Any] | None:
    """Return the settings of the run there, if there is one; raises InvalidInput where another one was asked for."""
    if not (directory / SETTINGS).exists():
        return None
    there = read_settings(directory, kind=KIND)
    stored = Recipe.stored(there["recipe"], source=directory / SETTINGS).model_dump()
    pairs = {key: (value, stored[key]) for key, value in recipe.model_dump().items()}
    pairs |= {key: (value, there[key]) for key, value in options.items()}
    rule = "must be {!r}, as in the run there (remove the directory to start anew)"
    if found := [(key, rule.format(began), asked) for key, (asked, began) in pairs.items() if asked != began]:
        raise InvalidInput([problem(directory, *each) for each in found])
    check_fingerprint(faces, there)
    return there


def _held_out(path: Path, recipe: Recipe, result: dict[str, Any], faces: Faces) -> NDArray[np.float32]:
    """Return what the finished training in a directory says of faces, as probabilities (N, classes), and keep it."""
    if (path / HELD_OUT).exists():
        kept: NDArray[np.float32] = np.load(path / HELD_OUT, allow_pickle=False)
        return kept
    choice = ViewChoice(**result["prediction"])
    network = load_model(recipe, path / WEIGHTS, faces.form).to(choose_device())
    logits = choice.adjusted(split_logits(network, faces))[choice.views]
    probabilities = np.exp(log_probabilities(logits, choice.temperature[choice.views])).astype(np.float32)
    with replacing(path / HELD_OUT) as temporary, temporary.open("wb") as file:
        np.save(file, probabilities)
    return probabilities


def _write(found: NoiseReport, recipe: Recipe, *, folds: int, fingerprint: str) -> None:
    """Write the soft labels, the suspects, the page and, last, the figures."""
    from fer_search.html_report.label_noise import write_page  # matplotlib, which nothing else here needs

    made = {"by": KIND, "run": found.directory.name, "folds": folds, "recipe_digest": recipe.digest()}
    labels = SoftLabels.of(
        found.fit, found.probabilities, fingerprint=fingerprint, split=recipe.model_dump(), made=made
    )
    write_soft_labels(labels, found.directory / SOFT_LABELS)
    rows = list(found.suspects())
    with replacing(found.directory / SUSPECTS) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, list(rows[0]) if rows else ["rank"])
        writer.writeheader()
        writer.writerows(rows)
    write_page(found.directory / PAGE, found)
    write_json(found.directory / RESULT, {**found.summary(), "soft_labels_digest": labels.digest()})
