"""What the winner's augmentation makes of faces, beside that of the space's own settings."""

import numpy as np
import torch
from torch import Generator

from fer_search.data.faces import Faces
from fer_search.html_report.drawing import Plot
from fer_search.html_report.training_plots import FACES_A_ROW, faces_figure
from fer_search.recipe import Recipe
from fer_search.training.augment import augment


def augmentation(faces: Faces, first: Recipe, winner: Recipe) -> Plot:
    """Draw the same faces as they are, and as either recipe shows them to the network, from the same random numbers."""
    chosen = np.random.default_rng(0).choice(len(faces), FACES_A_ROW, replace=len(faces) < FACES_A_ROW)
    pixels, labels = torch.tensor(faces.pixels[chosen]), torch.tensor(faces.labels[chosen])
    rows, titles = [faces.pixels[chosen]], [faces.classes[label] for label in faces.labels[chosen]]
    for recipe, name in ((first, "own settings"), (winner, "winner")):
        images, _ = augment(pixels, labels, faces.classes, recipe, Generator().manual_seed(0))
        shown = (images * 255).round().to(torch.uint8).movedim(1, -1).numpy()
        rows.append(shown.reshape(rows[0].shape))
        titles += [name] * FACES_A_ROW
    return Plot(
        "augmentation",
        faces_figure(np.concatenate(rows), titles),
        f"{FACES_A_ROW} faces: as they are, augmented by the space's own settings, and by the winner's.",
        "Top: as they are. Middle: as the space's own settings show them in training. Bottom: as the winner does.",
    )
