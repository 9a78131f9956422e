"""Which labels are probably wrong, and how many: confident learning. Loads no torch.

Northcutt, Jiang and Chuang, Confident Learning: Estimating Uncertainty in Dataset Labels (2021,
https://arxiv.org/abs/1911.00068). A class's threshold is the mean probability of the images that are labelled so; an
image is confidently of a class if its probability of it reaches that threshold. What is confidently of another class
than it is labelled is suspicious.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class LabelNoise:
    """What N labels of C classes are probably worth.

    `joint` (C, C) estimates how many images have the label of its row and are of the class of its column; a row's sum
    is how many images have the label. `suspects` are indices of images, the most suspicious first: by their normalised
    margin, the probability of the label less that of the most probable other class.
    """

    thresholds: NDArray[np.float64]  # (C,), NaN for a class that no image is labelled with
    joint: NDArray[np.float64]
    suspects: NDArray[np.int64]  # (S,)
    suggested: NDArray[np.int64]  # (S,), the class that each suspect is confidently of
    margins: NDArray[np.float64]  # (S,)

    @property
    def share(self) -> float:
        """The estimated share of wrong labels."""
        return 1 - float(self.joint.trace() / self.joint.sum())

    @property
    def share_of_class(self) -> NDArray[np.float64]:
        """The estimated share (C,) of wrong labels among the images labelled with each class; NaN without images."""
        return 1 - self.true_given_label.diagonal()

    @property
    def true_given_label(self) -> NDArray[np.float64]:
        """The estimated share (C, C) of each class, by column, among the images with each label, by row."""
        totals = self.joint.sum(1, keepdims=True)
        shares: NDArray[np.float64] = np.divide(
            self.joint, totals, out=np.full(self.joint.shape, np.nan), where=totals > 0
        )
        return shares


def find_label_noise(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> LabelNoise:
    """Judge the `labels` (N,) by class `probabilities` (N, C) of a network that has not learned from these images.

    What the network cannot tell apart is taken for noise of the labels, and the other way round: the estimate is no
    better than the network.
    """
    num, num_classes = probabilities.shape
    rows, classes = np.arange(num), np.arange(num_classes)
    counts = np.bincount(labels, minlength=num_classes)
    own = probabilities[rows, labels].astype(np.float64)
    sums = np.bincount(labels, weights=own, minlength=num_classes)
    thresholds = np.divide(sums, counts, out=np.full(num_classes, np.nan), where=counts > 0)

    reached = probabilities >= thresholds  # never for NaN
    likeliest = np.where(reached, probabilities, -1.0).argmax(1)
    confident = reached.any(1)
    joint = np.zeros((num_classes, num_classes))
    np.add.at(joint, (labels[confident], likeliest[confident]), 1)
    # A class without a confident image, as one without any, says nothing against its label.
    nothing_known = joint.sum(1) == 0
    joint[classes[nothing_known], classes[nothing_known]] = 1
    joint *= (counts / joint.sum(1))[:, None]

    others = np.where(classes == labels[:, None], -np.inf, probabilities)
    margins = own - others.max(1)
    wrong = np.flatnonzero(confident & (likeliest != labels))
    suspects = wrong[np.argsort(margins[wrong], kind="stable")]
    return LabelNoise(thresholds, joint, suspects, likeliest[suspects], margins[suspects])
