"""How far a confidence can be believed, and the temperature that mends it. Loads no torch.

Both are Guo et al.'s (2017, https://arxiv.org/abs/1706.04599).
"""

from typing import Any

import numpy as np
from numpy.typing import NDArray

TEMPERATURE_BOUNDS = (0.05, 20.0)
"""Where a temperature is looked for; a network that makes no mistake would have none above 0."""


def fit_temperature(logits: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> float:
    """Return the T for which softmax(logits / T) has the lowest NLL, for logits (N, classes) and labels (N,).

    The NLL is convex in 1 / T, so there is one minimum. No image changes its predicted class.
    """
    from scipy.optimize import minimize_scalar

    found = minimize_scalar(
        lambda log_temperature: negative_log_likelihood(log_probabilities(logits, np.exp(log_temperature)), labels),
        bounds=(np.log(TEMPERATURE_BOUNDS[0]), np.log(TEMPERATURE_BOUNDS[1])),
        method="bounded",
        options={"xatol": 1e-6},
    )
    return float(np.exp(found.x))


def log_probabilities(logits: NDArray[np.floating[Any]], temperature: float) -> NDArray[np.float64]:
    """Return the logarithms (N, classes) of softmax(logits / temperature)."""
    from scipy.special import log_softmax

    logarithms: NDArray[np.float64] = log_softmax(logits.astype(np.float64) / temperature, axis=1)
    return logarithms


def negative_log_likelihood(logarithms: NDArray[np.float64], labels: NDArray[np.int64]) -> float:
    """Return the mean of -log p(label) for log probabilities (N, classes)."""
    return float(-logarithms[np.arange(len(labels)), labels].mean())


def calibration_error(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, num_bins: int = 15
) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, weighted by bin size."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))
