"""The figures of logits: accuracy with its interval, F1, precision, recall, calibration. Loads no torch."""

import math
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_search.data.faces import EMOTIONS
from fer_search.training.calibration import calibration_error, log_probabilities, negative_log_likelihood

NORMAL_QUANTILE = 1.959963984540054  # of 0.975


def evaluate(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, classes: Sequence[str], temperature: float
) -> dict[str, Any]:
    """Return all figures of logits (N, classes) against labels (N,), ready for JSON.

    The 95 % interval of the accuracy is Wilson's (1927), the calibration error the expected one over 15 bins of equal
    width. NLL and calibration error are those of softmax(logits), and under `calibrated` those of
    softmax(logits / temperature). Recall of a class without images and precision of one that was never predicted
    are None.
    """
    from sklearn.metrics import confusion_matrix, f1_score, precision_score, recall_score

    predicted = logits.argmax(1)
    correct = predicted == labels
    indices = np.arange(len(classes))
    low, high = accuracy_interval(int(correct.sum()), len(labels))
    # nan tells what has no value; as None it can be written as JSON
    recall = recall_score(labels, predicted, labels=indices, average=None, zero_division=np.nan)
    precision = precision_score(labels, predicted, labels=indices, average=None, zero_division=np.nan)
    return {
        "classes": list(classes),
        "num_images": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": float(f1_score(labels, predicted, labels=indices, average="macro", zero_division=0.0)),
        **_confidence(logits, labels, temperature=1.0),
        "calibrated": {"temperature": temperature, **_confidence(logits, labels, temperature=temperature)},
        "precision": _by_class(classes, precision),
        "recall": _by_class(classes, recall),
        "confusion": confusion_matrix(labels, predicted, labels=indices).tolist(),
    }


def classes_of(figures: Mapping[str, Any]) -> Sequence[str]:
    """Return the classes that figures are about, in the order of the confusion; an older version did not note them."""
    found: Sequence[str] = figures.get("classes", EMOTIONS)
    return found


def accuracy_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy (1927, https://doi.org/10.1080/01621459.1927.10502953).

    scipy's is the same, and takes milliseconds, of which a leaderboard of 1,000 trials would take seconds.
    """
    squared = NORMAL_QUANTILE**2
    middle = (num_correct + squared / 2) / (num_images + squared)
    spread = math.sqrt(num_correct * (num_images - num_correct) / num_images + squared / 4)
    half = NORMAL_QUANTILE * spread / (num_images + squared)
    return max(0.0, middle - half), min(1.0, middle + half)


def summary(figures: Mapping[str, Any]) -> str:
    """Return the line that a person reads first."""
    return (
        f"{figures['accuracy']:.2%} accuracy (95 % interval {figures['accuracy_low']:.2%} to "
        f"{figures['accuracy_high']:.2%}, {figures['num_images']} images), macro-F1 {figures['macro_f1']:.3f}"
    )


def _confidence(
    logits: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, temperature: float
) -> dict[str, float]:
    logarithms = log_probabilities(logits, temperature)
    return {
        "nll": negative_log_likelihood(logarithms, labels),
        "calibration_error": calibration_error(np.exp(logarithms), labels),
    }


def _by_class(classes: Sequence[str], values: NDArray[np.float64]) -> dict[str, float | None]:
    return {name: None if np.isnan(value) else float(value) for name, value in zip(classes, values, strict=True)}
