"""What a network is worth: probabilities of faces, and the figures that follow from them."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from scipy.stats import binomtest
from sklearn.metrics import confusion_matrix, f1_score, recall_score
from torch import Tensor, nn

from fer_search.data.faces import EMOTIONS

EVALUATION_BATCH = 512


@torch.no_grad()
def predict_logits(model: nn.Module, pixels: Tensor) -> Tensor:
    """Return the float32 logits (N, 7) of uint8 pixels (N, 48, 48) on the model's device; its mode stays."""
    was_training = model.training
    model.eval()
    logits = torch.cat(
        [model(batch.unsqueeze(1).float() / 255).float() for batch in torch.split(pixels, EVALUATION_BATCH)]
    )
    model.train(was_training)
    return logits


def epoch_metrics(logits: Tensor, labels: Tensor) -> dict[str, float]:
    """Return loss, accuracy and macro-F1 of logits (N, 7) against labels (N,)."""
    predicted = logits.argmax(1)
    loss = F.cross_entropy(logits, labels)
    macro_f1 = f1_score(
        labels.cpu().numpy(), predicted.cpu().numpy(), labels=range(len(EMOTIONS)), average="macro", zero_division=0.0
    )
    return {
        "loss": float(loss),
        "accuracy": float((predicted == labels).float().mean()),
        "macro_f1": float(macro_f1),
    }


def evaluate(probabilities: NDArray[np.floating[Any]], labels: NDArray[np.int64]) -> dict[str, Any]:
    """Return all figures of probabilities (N, 7) against labels (N,), ready for JSON.

    The 95 % interval of the accuracy is Wilson's (1927). The calibration error is the expected one over 15 bins of
    equal width (Guo et al. 2017). Recall of a class without images is None.
    """
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
