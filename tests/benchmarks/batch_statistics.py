"""Whether averaged weights want statistics of batch normalisation of their own: averaged ones against fresh ones.

    python tests/benchmarks/batch_statistics.py RUN...

Weights are averaged over the steps of a training (EMA), and so are the running statistics of its batch normalisation.
Those of the averaged network are others; a soup's are computed anew for that reason. For each finished training the
network is judged on search-validation, without views, as it is and with statistics of augmented fit images; printed are
accuracy and NLL at the temperature that fits each, and McNemar's exact test. PublicTest is not read.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
from torch import nn

from fer_search.data.faces import Faces
from fer_search.recipe import Recipe
from fer_search.record import data_of
from fer_search.runs import SETTINGS, read_json
from fer_search.training.calibration import fit_temperature, log_probabilities, negative_log_likelihood
from fer_search.training.evaluation import predict_logits
from fer_search.training.paired import compare
from fer_search.training.run import WEIGHTS, load_model
from fer_search.training.soup import renew_statistics
from fer_search.training.trainer import choose_device


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("runs", type=Path, nargs="+", help="directories of finished trainings")
    for run in parser.parse_args().runs:
        settings = read_json(run / SETTINGS)
        recipe = Recipe.stored(settings["recipe"], source=run / SETTINGS)
        faces, splits = data_of(settings, recipe)
        validation, device = splits.validation, choose_device()
        network = load_model(recipe, run / WEIGHTS, faces.form).to(device)
        averaged = logits(network, validation, device)
        renew_statistics(network, splits.fit, recipe, device=device)
        fresh = logits(network, validation, device)
        for name, found in (("averaged", averaged), ("fresh", fresh)):
            nll = negative_log_likelihood(
                log_probabilities(found, fit_temperature(found, validation.labels)), validation.labels
            )
            print(f"{run.name}, {name}: {(found.argmax(1) == validation.labels).mean():.2%}, NLL {nll:.4f}", flush=True)
        paired = compare(fresh.argmax(1), averaged.argmax(1), validation.labels, num_classes=len(faces.classes))
        print(f"{run.name}: p = {paired['mcnemar_p']:.2f}", flush=True)


def logits(network: nn.Module, faces: Faces, device: torch.device) -> np.ndarray:
    return predict_logits(network, torch.tensor(faces.pixels, device=device)).cpu().numpy()


if __name__ == "__main__":
    main()
