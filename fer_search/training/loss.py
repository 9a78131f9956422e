"""The loss of a batch on soft targets, which may be mixed: smoothing and class weights kept apart.

`cross_entropy(weight=w)` would put weight on the smoothing mass too, which for FER2013 makes "disgust, 0.185" the best
answer to a happy face (pytorch#104776), and divides by N for soft and by the weights' sum for hard targets. Here every
*image* has a weight, by its target before smoothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor

from fer_search.recipe import Recipe
from fer_search.training.model import Outputs


def smooth_labels(targets: Tensor, smoothing: float) -> Tensor:
    """Spread `smoothing` of the probability mass of each row evenly over all classes (Szegedy et al. 2016)."""
    return targets * (1 - smoothing) + smoothing / targets.shape[1]


def class_weights(labels: Tensor, power: float, num_classes: int) -> Tensor:
    """Return a weight (classes,) for each class: its frequency in `labels` (N,) to the power -`power`.

    The mean weight of the images is 1, so that the learning rate means the same for every power. A class without images
    has weight 1.
    """
    counts = torch.bincount(labels, minlength=num_classes).float()
    weights = torch.where(counts > 0, (counts / len(labels)).clamp(min=1e-12) ** -power, 1.0)
    return weights * len(labels) / (weights * counts).sum()


def image_losses(outputs: Outputs, targets: Tensor, weights: Tensor, recipe: Recipe) -> Tensor:
    """Return the loss (N,) of each image for targets (N, classes) whose rows sum to 1, not yet smoothed.

    The main loss is cross entropy; the recipe's weights add the auxiliary classifiers' mean cross entropy and the mean
    binary cross entropy of the emotion heads.
    """
    smoothed = smooth_labels(targets, recipe.label_smoothing)
    losses = F.cross_entropy(outputs.logits.float(), smoothed, reduction="none")
    if outputs.auxiliary_logits:
        auxiliary = [F.cross_entropy(each.float(), smoothed, reduction="none") for each in outputs.auxiliary_logits]
        losses = losses + recipe.auxiliary_weight * torch.stack(auxiliary).mean(0)
    if outputs.emotion_logits is not None:
        answers = F.binary_cross_entropy_with_logits(outputs.emotion_logits.float(), smoothed, reduction="none")
        losses = losses + recipe.emotion_heads_weight * answers.mean(1)
    return losses * (targets @ weights)
