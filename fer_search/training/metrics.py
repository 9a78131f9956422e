"""The figures that follow from probabilities: accuracy with its interval, F1, recall, calibration. Loads no torch."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_search.data.faces import EMOTIONS


def evaluate(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return all figures of probabilities (N, 7) against labels (N,), ready for JSON.

    The 95 % interval of the accuracy is Wilson's (1927). The calibration error is the expected one over 15 bins of
    equal width (Guo et al. 2017). Recall of a class without images is None.
    """
    from sklearn.metrics import confusion_matrix, f1_score, recall_score

    predicted = probabilities.argmax(1)
    correct = predicted == labels
    classes = np.arange(len(EMOTIONS))
    low, high = accuracy_interval(int(correct.sum()), len(labels))
    recall = recall_score(labels, predicted, labels=classes, average=None, zero_division=np.nan)
    return {
        "num_images": len(labels),
        "accuracy": float(correct.mean()),
        "accuracy_low": low,
        "accuracy_high": high,
        "macro_f1": float(f1_score(labels, predicted, labels=classes, average="macro", zero_division=0.0)),
        "nll": float(-np.log(np.clip(probabilities[np.arange(len(labels)), labels], 1e-12, 1)).mean()),
        "calibration_error": calibration_error(probabilities, labels),
        "recall": {name: None if np.isnan(r) else float(r) for name, r in zip(EMOTIONS, recall, strict=True)},
        "confusion": confusion_matrix(labels, predicted, labels=classes).tolist(),
    }


def accuracy_interval(num_correct: int, num_images: int) -> tuple[float, float]:
    """Return Wilson's 95 % interval of an accuracy."""
    from scipy.stats import binomtest

    interval = binomtest(num_correct, num_images).proportion_ci(0.95, method="wilson")
    return float(interval.low), float(interval.high)


def calibration_error(
    probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64], *, num_bins: int = 15
) -> float:
    """Return the expected calibration error: the mean gap between confidence and accuracy, weighted by bin size."""
    confidence = probabilities.max(1)
    correct = probabilities.argmax(1) == labels
    bins = np.minimum((confidence * num_bins).astype(int), num_bins - 1)
    gaps = np.bincount(bins, weights=correct - confidence, minlength=num_bins)
    return float(np.abs(gaps).sum() / len(labels))


def summary(figures: Mapping[str, Any]) -> str:
    """Return the line that a person reads first."""
    return (
        f"{figures['accuracy']:.2%} accuracy (95 % interval {figures['accuracy_low']:.2%} to "
        f"{figures['accuracy_high']:.2%}, {figures['num_images']} images), macro-F1 {figures['macro_f1']:.3f}"
    )
