"""Which of many trained networks to ask together, and how much weight each gets. Loads no torch.

Greedy forward selection with replacement (Caruana et al. 2004, "Ensemble selection from libraries of models") by the
likelihood of held-out labels. An ensemble's negative log-likelihood (NLL) is its members' mean NLL less their
disagreement about the labels: -log(mean p) = mean(-log p) - (log(mean p) - mean(log p)), where the last term is never
negative (Jensen) and grows with the differences between the members. So a network that is worse alone is taken where it
errs elsewhere, without a weight for diversity that somebody would have to tune. Accuracy, which moves in steps of an
image, decides nothing and is reported.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_search.training.calibration import negative_log_likelihood

MOST_PICKS = 20
"""Picks of a selection, the same network again included; later ones change a weight by less than a twentieth."""


@dataclass(frozen=True)
class Pick:
    """What was added to an ensemble, by its number, and the NLL and accuracy of the whole with it."""

    added: int
    nll: float
    accuracy: float


def select_ensemble(
    probabilities: NDArray[np.float64], labels: NDArray[np.int64], *, most: int = MOST_PICKS
) -> list[Pick]:
    """Return the picks in their order, for the candidates' probabilities (M, N, classes) of labels (N,).

    The first is the candidate with the lowest NLL; then comes, again and again, the one with which the mean of all
    picks has the lowest, until none lowers it. A candidate's weight is how often it was picked.
    """
    picks: list[Pick] = []
    total = np.zeros(probabilities.shape[1:])
    while len(picks) < most:
        means = [(total + each) / (len(picks) + 1) for each in probabilities]
        losses = [mean_nll(mean, labels) for mean in means]
        best = int(np.argmin(losses))
        if picks and losses[best] >= picks[-1].nll:
            break
        total = total + probabilities[best]
        picks.append(Pick(best, losses[best], float((means[best].argmax(1) == labels).mean())))
    return picks


def mean_nll(probabilities: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean of -log p(label) for probabilities (N, classes)."""
    with np.errstate(divide="ignore"):  # a network may be sure of what is wrong
        return negative_log_likelihood(np.log(probabilities), labels)


def disagreement(predicted: Sequence[NDArray[np.int64]]) -> list[float]:
    """Return for each model the share of images that another one calls otherwise, as the mean over all the others.

    `predicted` holds each model's classes (N,), of two models at least.
    """
    table = np.stack(predicted)
    differs = (table[:, None] != table[None]).mean(2)
    return [float(share) for share in differs.sum(1) / (len(table) - 1)]
