"""The sections of a search's winner once it is trained: its figures, its faces, its augmentation, its data."""

import numpy as np
from numpy.typing import NDArray

from fer_search.data.audit import audit
from fer_search.data.faces import Faces
from fer_search.data.fer2013 import load_faces
from fer_search.errors import InvalidInput
from fer_search.html_report import training_plots
from fer_search.html_report.augmentation import augmentation
from fer_search.html_report.label_noise import suspects_section
from fer_search.html_report.section import Section
from fer_search.html_report.tables import from_terminal
from fer_search.long_trainings import LongTraining, read_logits
from fer_search.recipe import Recipe
from fer_search.record import check_fingerprint, split_for
from fer_search.report import audit_tables, target_line, training_table
from fer_search.search_result import SearchResult
from fer_search.training.calibration import log_probabilities
from fer_search.training.metrics import summary


def winner_sections(result: SearchResult, best: LongTraining) -> list[Section]:
    """Return the sections of `best`, the seed of the winner's trainings that export takes."""
    views, public, label = (
        best.result["prediction"]["views"],
        best.result["metrics"]["public"],
        best.result["data"]["public_label"],
    )
    text = f"{label}: {summary(public[views])}."
    if target := target_line(public[views], label=label):
        text += f" {target}."
    plots = [training_plots.confusion(public[views], split=label), training_plots.recall(public, split=label)]
    winner = Section("Winner", text, [from_terminal(training_table(best.result, title=""))], plots)
    return [winner, *_images(result, best)]


def _images(result: SearchResult, best: LongTraining) -> list[Section]:
    """Return the sections that need the images, which may have been moved since."""
    try:
        faces = load_faces(result.settings["data"]["source"])
        check_fingerprint(faces, result.settings)
    except InvalidInput as error:
        return [Section("Faces", f"Not shown: {error}")]
    recipe = Recipe.build(best.result["recipe"])
    splits = split_for(faces, recipe)
    first = Recipe.build(result.space.complete(result.space.first_point))
    return [
        *_faces(best, splits.validation),
        Section("Augmentation", plots=[augmentation(splits.fit, first, recipe)]),
        Section("Data", tables=[from_terminal(table) for table in audit_tables(audit(faces), title="")]),
    ]


def _faces(best: LongTraining, validation: Faces) -> list[Section]:
    views = best.result["prediction"]["views"]
    logits = read_logits(best.directory, "validation", views)
    if logits is None or len(logits) != len(validation):
        return [Section("Faces", "Not shown: this training was made by a version that did not keep its logits.")]
    temperature, split = best.result["prediction"]["temperature"][views], "search-validation"
    plots = [training_plots.calibration(logits, validation.labels, temperature, split=split)]
    for name, right in (("mistakes", False), ("best_examples", True)):
        plots.append(training_plots.told_faces(name, validation, logits, temperature, right=right, split=split))
    text = "Temperature and faces are of search-validation, which PublicTest has no part in."
    probabilities: NDArray[np.float64] = np.exp(log_probabilities(logits, temperature))
    return [Section("Faces", text, plots=plots), suspects_section(validation, probabilities, split=split)]
