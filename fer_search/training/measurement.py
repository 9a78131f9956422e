"""A trained network, measured: what search-validation chooses after the training, and the figures of a split."""

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from fer_search.data.faces import Faces
from fer_search.data.splits import Splits
from fer_search.training.calibration import fit_temperature
from fer_search.training.evaluation import predict_logits
from fer_search.training.logit_adjustment import choose_tau, log_prior
from fer_search.training.metrics import evaluate
from fer_search.training.views import VIEW_SETS, VIEWS, PredictionNet, combine

Logits = dict[str, NDArray[np.float32]]
"""The logits (N, classes) of each of VIEW_SETS."""


@dataclass(frozen=True)
class ViewChoice:
    """What did best on search-validation: views, temperatures and logit adjustment; mappings have a value per view set.

    Results and bundles of older versions know no logit adjustment; without one, `tau` is 0.
    """

    views: str  # the chosen one of VIEW_SETS
    temperature: dict[str, float]
    val_accuracy: dict[str, float]
    val_nll: dict[str, float]  # at that temperature
    tau: float = 0.0
    tau_tried: float = 0.0
    tau_p: float = 1.0  # of the paired test that it had to pass
    log_prior: list[float] = field(default_factory=list)  # of the fit images' classes

    @property
    def shift(self) -> list[float] | None:
        """What is added to the logits (classes,) at their temperature, if anything."""
        return [-self.tau * each for each in self.log_prior] if self.tau else None

    def prediction_net(self, network: nn.Module) -> PredictionNet:
        """Return the network as the choice uses it."""
        temperature = self.temperature[self.views]
        return PredictionNet(network, views=VIEW_SETS[self.views], temperature=temperature, shift=self.shift)

    def adjusted(self, logits: Logits) -> Logits:
        """Return the logits which, divided by the temperature, are those that the choice predicts with."""
        if self.shift is None:
            return logits
        shift = np.array(self.shift, dtype=np.float32)
        return {views: values + np.float32(self.temperature[views]) * shift for views, values in logits.items()}


def measure_training(network: nn.Module, splits: Splits) -> tuple[ViewChoice, dict[str, Any], dict[str, Logits]]:
    """Choose how to predict on search-validation; return the choice, each split's figures, and the logits.

    The figures are those of `figures_of` for `validation`, `public` and `public_unique`; the last is left out where it
    has no image. The logits are those of `validation` and `public`, adjusted where the choice is.
    """
    validation = split_logits(network, splits.validation)
    classes = splits.validation.classes
    choice = choose_views(validation, splits.validation.labels, classes)
    choice = choose_adjustment(choice, validation, splits.validation.labels, splits.fit.labels, classes)
    public = split_logits(network, splits.public)
    unique = splits.public_unique
    metrics = {
        "validation": figures_of(validation, splits.validation.labels, classes, choice),
        "public": figures_of(public, splits.public.labels, classes, choice),
    }
    if unique.any():
        alone = {views: logits[unique] for views, logits in public.items()}
        metrics["public_unique"] = figures_of(alone, splits.public.labels[unique], classes, choice)
    return choice, metrics, {"validation": choice.adjusted(validation), "public": choice.adjusted(public)}


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


def choose_adjustment(
    choice: ViewChoice,
    logits: Logits,
    labels: NDArray[np.int64],
    fit_labels: NDArray[np.int64],
    classes: Sequence[str],
) -> ViewChoice:
    """Return the choice with the logit adjustment that search-validation speaks for, or with none."""
    prior = log_prior(fit_labels, len(classes))
    found = choose_tau(logits[choice.views] / choice.temperature[choice.views], labels, prior)
    choice = replace(
        choice, tau=found.tau, tau_tried=found.tried, tau_p=found.p_value, log_prior=[float(each) for each in prior]
    )
    if not choice.tau:
        return choice
    figures = figures_of(logits, labels, classes, choice)
    return replace(
        choice,
        val_accuracy={views: each["accuracy"] for views, each in figures.items()},
        val_nll={views: each["calibrated"]["nll"] for views, each in figures.items()},
    )


def split_logits(network: nn.Module, faces: Faces) -> Logits:
    """Return the logits of the faces for every view set, each view computed once, on the network's device."""
    pixels = torch.tensor(faces.pixels, device=next(network.parameters()).device)
    by_view = {name: predict_logits(network, pixels, view=view) for name, view in VIEWS.items()}
    return {
        views: combine(torch.stack([by_view[name] for name in names])).cpu().numpy()
        for views, names in VIEW_SETS.items()
    }


def figures_of(logits: Logits, labels: NDArray[np.int64], classes: Sequence[str], choice: ViewChoice) -> dict[str, Any]:
    """Return the figures of each view set at its temperature, adjusted where the choice is."""
    adjusted = choice.adjusted(logits)
    return {
        views: evaluate(adjusted[views], labels, classes=classes, temperature=choice.temperature[views])
        for views in VIEW_SETS
    }
