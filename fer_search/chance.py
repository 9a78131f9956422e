"""Which trials have learned nothing: their accuracy stays at that of always naming the most frequent emotion."""

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from fer_search.journal import TrialRecord
from fer_search.training.metrics import accuracy_interval

ACCURACIES = ("val_accuracy", "val_accuracy_ema")


@dataclass(frozen=True)
class ChanceLevel:
    """The largest accuracy that naming one emotion only can be mistaken for, on the faces that trials are judged on."""

    accuracy: float

    @classmethod
    def of(cls, labels: NDArray[np.integer]) -> "ChanceLevel":
        """Return the upper end of the 95 % interval of the most frequent label's share."""
        return cls(accuracy_interval(int(np.bincount(labels).max()), len(labels))[1])

    def verdict(self, trial: TrialRecord) -> str | None:
        """Return why a trial should end at once, or None.

        It should once a whole epoch has followed the learning rate's peak and neither its weights nor their average are
        above chance: from there the rate only falls, and what has not left that plateau does not.
        """
        epoch = len(trial.epochs)
        if epoch <= math.ceil(trial.parameters["pct_start"] * trial.parameters["epochs"]):
            return None
        reached = max(trial.epochs[-1][name] for name in ACCURACIES if name in trial.epochs[-1])
        if reached > self.accuracy:
            return None
        return f"no better than chance ({self.accuracy:.1%}) after the learning rate's peak: {reached:.1%}"
