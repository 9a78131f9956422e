"""What soft labels from out-of-fold predictions are worth on real FER2013: shares of them in the target, same seeds.

    python tests/benchmarks/soft_labels.py fer2013.csv --results soft_labels.jsonl

A twentieth of the fit images, as in ablation.py, so that CPU cores suffice; the teachers, one for each of five folds,
are trained as the pupils are. Judged are the last averaged weights, on 3,000 faces of search-validation and on
PublicTest. Every finished training is a line of the results file, the soft labels are a file beside it, and an
interrupted run goes on where it was. The table that is printed at the end holds the differences to the training without
soft labels, seed by seed, with Student's 95 % interval of their mean.
"""

import argparse
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from ablation import NUM_JUDGED, NUM_WATCHED, SMALL, read_results
from scipy import stats

from fer_search.data.faces import Faces
from fer_search.data.fer2013 import load_faces
from fer_search.data.label_noise import find_label_noise
from fer_search.data.splits import fold_of
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.training.calibration import fit_temperature, log_probabilities
from fer_search.training.evaluation import predict_logits
from fer_search.training.trainer import Trainer, choose_device

FOLDS = 5
WEIGHTS = (0.0, 0.3, 0.5, 0.7)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data")
    parser.add_argument("--results", type=Path, default=Path("soft_labels.jsonl"))
    parser.add_argument("--seeds", type=int, default=3)
    arguments = parser.parse_args()
    faces, recipe = load_faces(arguments.data), Recipe().replace(SMALL)
    splits = split_for(faces, recipe)
    judged = splits.validation.take(np.random.default_rng(0).permutation(len(splits.validation))[:NUM_JUDGED])
    soft = out_of_fold(recipe, splits.fit, judged, arguments.results.with_suffix(".npy"))
    noise = find_label_noise(soft, splits.fit.labels)
    agree = float((soft.argmax(1) == splits.fit.labels).mean())
    print(f"{len(soft)} faces; {agree:.1%} agree, {noise.share:.1%} wrong, {len(noise.suspects)} suspects", flush=True)
    fit = replace(splits.fit, soft_labels=soft)
    for seed in range(arguments.seeds):
        for weight in WEIGHTS:
            key = {"weight": weight, "seed": seed}
            if any(key.items() <= result.items() for result in read_results(arguments.results)):
                continue
            trainer = trained(recipe.replace({"soft_label_weight": weight, "seed": seed}), fit, judged)
            sets = {"validation": judged, "public": splits.public}
            found = {
                name: float((logits(trainer, each).argmax(1) == each.labels).mean()) for name, each in sets.items()
            }
            with arguments.results.open("a") as file:
                file.write(json.dumps({**key, **found}) + "\n")
            print(key, found, flush=True)
    table(arguments.results)


def out_of_fold(recipe: Recipe, fit: Faces, judged: Faces, path: Path) -> np.ndarray:
    """Return the probabilities (N, classes) of networks that have not learned from the image, kept at `path`."""
    soft = np.load(path) if path.exists() else np.full((len(fit), len(fit.classes)), np.nan, np.float32)
    fold = fold_of(fit, folds=FOLDS, seed=recipe.split_seed)
    for number in range(FOLDS):
        if np.isnan(soft[fold == number]).any():
            trainer = trained(recipe, fit.take(fold != number), judged)
            temperature = fit_temperature(logits(trainer, judged), judged.labels)
            held_out = logits(trainer, fit.take(fold == number))
            soft[fold == number] = np.exp(log_probabilities(held_out, temperature))
            np.save(path, soft)
            print(f"fold {number}: temperature {temperature:.2f}", flush=True)
    return soft


def trained(recipe: Recipe, fit: Faces, judged: Faces) -> Trainer:
    trainer = Trainer(recipe, fit, judged.take(np.arange(NUM_WATCHED)), device=choose_device())
    for _ in trainer:
        pass
    return trainer


def logits(trainer: Trainer, faces: Faces) -> np.ndarray:
    assert trainer.ema is not None
    return predict_logits(trainer.ema.module, torch.tensor(faces.pixels, device=trainer.device)).cpu().numpy()


def table(path: Path) -> None:
    results = read_results(path)
    plain = {each["seed"]: each for each in results if each["weight"] == 0}
    for weight in WEIGHTS:
        own = [each for each in results if each["weight"] == weight and each["seed"] in plain]
        for split in ("validation", "public"):
            accuracy = np.mean([each[split] for each in own])
            gains = np.array([each[split] - plain[each["seed"]][split] for each in own]) * 100
            reach = stats.t.ppf(0.975, len(gains) - 1) * stats.sem(gains) if len(gains) > 1 else np.nan
            print(f"{weight} {split}: {accuracy:.1%} over {len(own)} seeds, {gains.mean():+.1f} +- {reach:.1f} points")


if __name__ == "__main__":
    main()
