"""Which trials have learned nothing: they name the most frequent class, whatever they see."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_search.journal import TrialRecord
from fer_search.training.metrics import accuracy_interval

ACCURACIES = ("val_accuracy", "val_accuracy_ema")
"""Those of the raw weights and of the averaged ones."""


@dataclass(frozen=True)
class ChanceLevel:
    """The largest accuracy and macro-F1 that always naming one class can have, on faces as those of the trials."""

    accuracy: float
    macro_f1: float

    @classmethod
    def of(cls, labels: NDArray[np.integer], num_classes: int) -> "ChanceLevel":
        """Return the level where the most frequent label's share is at the upper end of its 95 % interval.

        Of one class, the F1 is then 2 share / (1 + share), of the others 0.
        """
        share = accuracy_interval(int(np.bincount(labels).max()), len(labels))[1]
        return cls(share, 2 * share / (1 + share) / num_classes)

    def verdict(self, trial: TrialRecord) -> str | None:
        """Return why a trial should end at once, or None.

        It should once a whole epoch has followed the learning rate's peak and neither its weights nor their average are
        above chance: from there the rate only falls, and what has not left that plateau does not. A small accuracy
        alone is no sign of it, since a short training may just have begun.
        """
        epoch = len(trial.epochs)
        if epoch <= math.ceil(trial.parameters["pct_start"] * trial.parameters["epochs"]):
            return None
        last = trial.epochs[-1]
        reached = max(last[name] for name in ACCURACIES if name in last)
        if reached > self.accuracy or last["val_macro_f1"] > self.macro_f1:
            return None
        return f"names one class only after the learning rate's peak: accuracy {reached:.1%}"
