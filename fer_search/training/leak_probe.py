"""How much augmentation gives the label away, measured on images that show nothing.

RandAugment's chance depends on the class, so its traces (black corners, greys that no byte has) are more frequent in
some classes than in others, and a network could learn the trace in place of the face. On blank images the trace is all
there is: whatever a classifier gets right there above chance, it got from the augmentation.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Generator, Tensor

from fer_search.data.faces import EMOTIONS, IMAGE_SIZE
from fer_search.recipe import Recipe
from fer_search.training.augment import distort
from fer_search.training.metrics import accuracy_interval

CHUNK = 1_000  # images that are augmented at once, so that they stay in the processor's caches


@dataclass(frozen=True)
class LeakProbe:
    """What a small classifier made of augmented blank images; all are accuracies on evenly many of each class."""

    accuracy: float
    low: float  # the accuracy's 95 % interval by Wilson
    high: float
    chance: float  # the accuracy of guessing
    advantage: float  # accuracy - chance
    bound: float  # the best accuracy that knowing which images were augmented allows


def leak_probe(
    recipe: Recipe, classes: Sequence[str] = EMOTIONS, *, num_images: int = 21_000, seed: int = 0
) -> LeakProbe:
    """Augment blank images by `recipe`, up to the mixing; learn the label from half of them, be judged on the others.

    They are grey and of 48x48 pixels, whatever the data's are: larger blank images show no more.
    Runs on the CPU, in about 3 seconds for the default number of images, which makes the interval 0.014 wide.
    """
    from sklearn.tree import DecisionTreeClassifier

    generator = Generator().manual_seed(seed)
    labels = torch.arange(num_images) % len(classes)
    images = torch.cat([_traces(chunk, classes, recipe, generator) for chunk in torch.split(labels, CHUNK)]).numpy()
    truth: NDArray[np.int64] = labels.numpy()
    half = num_images // 2
    # Few and large leaves: there is one bit to find, and small leaves would learn the noise of the labels.
    tree = DecisionTreeClassifier(max_leaf_nodes=8, min_samples_leaf=0.01, random_state=seed)
    predicted: NDArray[Any] = tree.fit(images[:half], truth[:half]).predict(images[half:])
    num_correct = int((predicted == truth[half:]).sum())
    accuracy, chance = num_correct / (num_images - half), 1 / len(classes)
    low, high = accuracy_interval(num_correct, num_images - half)
    return LeakProbe(accuracy, low, high, chance, accuracy - chance, accuracy_bound(recipe, classes))


def accuracy_bound(recipe: Recipe, classes: Sequence[str] = EMOTIONS) -> float:
    """Return the best accuracy on a balanced set of a classifier that knows of each image whether it was augmented.

    It can do no better than to name the class that is augmented most often where an image was, and the one that is
    augmented least often where it was not; of C classes it is right in (max p + 1 - min p) / C of all cases.
    """
    if recipe.randaugment_magnitude == 0:
        return 1 / len(classes)
    chances = recipe.randaugment_probabilities(classes)
    return (1 + (max(chances) - min(chances))) / len(classes)


def _traces(labels: Tensor, classes: Sequence[str], recipe: Recipe, generator: Generator) -> Tensor:
    """Augment one blank image for each label (N,) and return features (N, 16) that show where it was touched.

    The grey of a blank image is a random byte, drawn without regard to the label.
    """
    grey = torch.randint(256, (len(labels), 1, 1), generator=generator, dtype=torch.uint8)
    images = distort(grey.expand(-1, IMAGE_SIZE, IMAGE_SIZE), labels, classes, recipe, generator)[:, 0]
    darkest, brightest = images.amin((1, 2)), images.amax((1, 2))
    middle = images[:, IMAGE_SIZE // 2, IMAGE_SIZE // 2]
    between = (images > darkest[:, None, None] + 0.01) & (images < brightest[:, None, None] - 0.01)
    # Blank images and whole-pixel shifts of them hold bytes only; most of what RandAugment does leaves other greys.
    off_byte = (images * 255 - (images * 255).round()).abs()
    features = [
        darkest, brightest, brightest - middle, middle, images.mean((1, 2)), images.std((1, 2)),
        between.float().mean((1, 2)), images.diff(dim=2).abs().mean((1, 2)), images.diff(dim=1).abs().mean((1, 2)),
        off_byte.amax((1, 2)), off_byte.mean((1, 2)), off_byte[:, IMAGE_SIZE // 2, IMAGE_SIZE // 2],
        images[:, 0, 0], images[:, 0, -1], images[:, -1, 0], images[:, -1, -1],
    ]  # fmt: skip
    return torch.stack(features, 1)
