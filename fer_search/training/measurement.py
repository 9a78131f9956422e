"""A trained network, measured: what search-validation chooses after the training, and the figures of a split."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fer_search.data.faces import Faces
from fer_search.data.splits import Splits
from fer_search.training.calibration import fit_temperature
from fer_search.training.evaluation import predict_logits
from fer_search.training.metrics import evaluate
from fer_search.training.views import VIEW_SETS, VIEWS, PredictionNet, combine

Logits = dict[str, NDArray[np.float32]]
"""The logits (N, classes) of each of VIEW_SETS."""


@dataclass(frozen=True)
class ViewChoice:
    """The views and the temperatures that did best on search-validation; each mapping has a value per view set."""

    views: str  # the chosen one of VIEW_SETS
    temperature: dict[str, float]
    val_accuracy: dict[str, float]
    val_nll: dict[str, float]  # at that temperature

    def prediction_net(self, network: nn.Module) -> PredictionNet:
        """Return the network as the choice uses it."""
        return PredictionNet(network, views=VIEW_SETS[self.views], temperature=self.temperature[self.views])


def measure_training(network: nn.Module, splits: Splits) -> tuple[ViewChoice, dict[str, Any], dict[str, Logits]]:
    """Choose views and temperatures on search-validation; return the choice, each split's figures, and the logits.

    The figures are those of `figures_of` for `validation`, `public` and `public_unique`; the last is left out where it
    has no image. The logits are those of `validation` and `public`.
    """
    validation = split_logits(network, splits.validation)
    classes = splits.validation.classes
    choice = choose_views(validation, splits.validation.labels, classes)
    public = split_logits(network, splits.public)
    unique = splits.public_unique
    metrics = {
        "validation": figures_of(validation, splits.validation.labels, classes, choice),
        "public": figures_of(public, splits.public.labels, classes, choice),
    }
    if unique.any():
        alone = {views: logits[unique] for views, logits in public.items()}
        metrics["public_unique"] = figures_of(alone, splits.public.labels[unique], classes, choice)
    return choice, metrics, {"validation": validation, "public": public}


def choose_views(logits: Logits, labels: NDArray[np.int64], classes: Sequence[str]) -> ViewChoice:
    """Fit a temperature for each view set and choose the one with the higher accuracy, or at a tie the lower NLL."""
    temperature = {views: fit_temperature(values, labels) for views, values in logits.items()}
    found = {
        views: evaluate(values, labels, classes=classes, temperature=temperature[views])
        for views, values in logits.items()
    }
    accuracy = {views: each["accuracy"] for views, each in found.items()}
    nll = {views: each["calibrated"]["nll"] for views, each in found.items()}
    best = min(VIEW_SETS, key=lambda views: (-accuracy[views], nll[views]))
    return ViewChoice(best, temperature, accuracy, nll)


def split_logits(network: nn.Module, faces: Faces) -> Logits:
    """Return the logits of the faces for every view set, each view computed once, on the network's device."""
    pixels = torch.tensor(faces.pixels, device=next(network.parameters()).device)
    by_view = {name: predict_logits(network, pixels, view=view) for name, view in VIEWS.items()}
    return {
        views: combine(torch.stack([by_view[name] for name in names])).cpu().numpy()
        for views, names in VIEW_SETS.items()
    }


def figures_of(logits: Logits, labels: NDArray[np.int64], classes: Sequence[str], choice: ViewChoice) -> dict[str, Any]:
    """Return the figures of each view set at its temperature."""
    return {
        views: evaluate(logits[views], labels, classes=classes, temperature=choice.temperature[views])
        for views in VIEW_SETS
    }
