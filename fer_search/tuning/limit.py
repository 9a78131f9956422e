"""What a search may spend, and when it has."""

import math
import time
from dataclasses import dataclass

from fer_search.errors import InvalidInput, problem
from fer_search.journal import Journal


@dataclass(frozen=True)
class Budget:
    """The most that a search may spend; None: what it takes.

    `hours` are those of one call. `epochs` and `gpu_hours` are those of all trials together since the search began;
    a GPU hour counts as much of the GPU as a trial occupies, by the time that its epochs took.
    """

    hours: float | None = None
    epochs: int | None = None
    gpu_hours: float | None = None

    def check(self, journal: Journal, *, gpus: float) -> None:
        """Raise InvalidInput where trials that occupy so many GPUs, with this journal, have nothing left to spend."""
        problems = []
        if self.epochs is not None and self.epochs <= journal.num_epochs:
            rule = f"must be more than the {journal.num_epochs} epochs that the search has had"
            problems.append(problem("command line", "epoch-budget", rule, self.epochs))
        if self.gpu_hours is not None and not gpus:
            rule = "must not be given where trials occupy no GPU"
            problems.append(problem("command line", "gpu-hours", rule, self.gpu_hours))
        elif self.gpu_hours is not None and self.gpu_hours <= (spent := _gpu_hours(journal, gpus)):
            rule = f"must be more than the {spent:.2f} that the search has had"
            problems.append(problem("command line", "gpu-hours", rule, self.gpu_hours))
        if problems:
            raise InvalidInput(problems)


class Limit:
    """Watches the budget of a search from now on, by a clock that nobody sets and by its journal."""

    def __init__(self, journal: Journal, budget: Budget, *, gpus: float) -> None:
        self.journal, self.budget, self.gpus = journal, budget, gpus
        self._end = math.inf if budget.hours is None else time.monotonic() + 3600 * budget.hours

    def allows(self, num_running: int) -> bool:
        """Return whether so many trials may each run another epoch; of epochs none is ever spent too many."""
        if time.monotonic() >= self._end:
            return False
        if self.budget.epochs is not None and self.journal.num_epochs + num_running > self.budget.epochs:
            return False
        return self.budget.gpu_hours is None or _gpu_hours(self.journal, self.gpus) < self.budget.gpu_hours


def _gpu_hours(journal: Journal, gpus: float) -> float:
    return gpus * journal.epoch_seconds / 3600
