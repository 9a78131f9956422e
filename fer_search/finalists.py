"""Files about a race's entrants, for people who look at them one by one in MLflow.

<search>/race/finalists/trial_00003/   an entrant as the search trained it: recipe, weights, confusion.png
"""

from collections.abc import Sequence
from pathlib import Path

import torch
from safetensors.torch import save_file

from fer_search.atomic import replacing
from fer_search.bundle import write_recipe
from fer_search.checkpoints import CHECKPOINTS, Checkpoints
from fer_search.data.fer2013 import load_faces
from fer_search.journal import TrialRecord
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.standings import finalist_directory
from fer_search.training.checkpoint import load_checkpoint
from fer_search.training.evaluation import predict_logits
from fer_search.training.metrics import evaluate
from fer_search.training.model import build_model
from fer_search.training.trainer import choose_device
from fer_search.tuning.retention import trial_directory


def write_finalists(race: Path, trials: Sequence[TrialRecord], *, metric: str, source: str) -> None:
    """Write the files of those of a search's `trials` that the search has kept a checkpoint of, and that lack them.

    Weights, raw or averaged, are those that `metric` judges by; what they confuse is on search-validation.
    """
    kind = "ema" if metric.endswith("_ema") else "model"
    missing = [trial for trial in trials if not finalist_directory(race, trial.number).exists()]
    kept = {trial.number: Checkpoints(trial_directory(race.parent / CHECKPOINTS, trial.number)) for trial in missing}
    states = [(trial, last.directory) for trial in missing if (last := kept[trial.number].newest()) is not None]
    if not states:
        return
    from fer_search.html_report.training_plots import confusion  # matplotlib

    faces, device = load_faces(source), choose_device()
    for trial, checkpoint in states:
        recipe = Recipe.build(trial.parameters)
        validation = split_for(faces, recipe).validation
        weights = load_checkpoint(checkpoint)[kind]
        network = build_model(recipe, faces.form)
        network.load_state_dict(weights)
        logits = predict_logits(network.to(device), torch.tensor(validation.pixels, device=device)).cpu().numpy()
        figures = evaluate(logits, validation.labels, classes=faces.classes, temperature=1.0)
        with replacing(finalist_directory(race, trial.number)) as temporary:
            temporary.mkdir()
            write_recipe(recipe, temporary / "recipe.toml")
            save_file({name: value.contiguous() for name, value in weights.items()}, temporary / "weights.safetensors")
            confusion(figures, split="search-validation").save(temporary)
