"""What a search may spend, and when it has."""

import math
import time
from collections.abc import Iterator
from contextlib import contextmanager
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


NO_LIMIT = Budget()


class Limit:
    """Watches what a search may spend from now on, by a clock that nobody sets and by its journal, and whether it is
    to stop: after the epochs that run (`stopping`, for a `reason`), or at once (`halted`, by a `fault` of the storage).
    """

    def __init__(self, journal: Journal, budget: Budget, *, gpus: float) -> None:
        self.journal, self.budget, self.gpus = journal, budget, gpus
        self.reason: str | None = None
        self.fault: OSError | None = None
        self._end = math.inf if budget.hours is None else time.monotonic() + 3600 * budget.hours
        self._halt_at = math.inf

    def allows(self, num_running: int) -> bool:
        """Return whether so many trials may each run another epoch; of epochs none is ever spent too many."""
        if self.stopping or time.monotonic() >= self._end:
            return False
        if self.budget.epochs is not None and self.journal.num_epochs + num_running > self.budget.epochs:
            return False
        return self.budget.gpu_hours is None or _gpu_hours(self.journal, self.gpus) < self.budget.gpu_hours

    @property
    def stopping(self) -> bool:
        """Whether no epoch may begin any more."""
        return self.reason is not None

    @property
    def halted(self) -> bool:
        """Whether the epochs that run are not waited for."""
        return time.monotonic() >= self._halt_at

    def stop(self, reason: str, *, grace: float | None = None) -> None:
        """Let no epoch begin any more, and wait at the most `grace` seconds for those that run."""
        self.reason = reason
        if grace is not None:
            self._halt_at = min(self._halt_at, time.monotonic() + grace)

    def halt(self) -> None:
        """Stop at once; what is in the middle of an epoch will repeat it."""
        self.reason = self.reason or "halted"
        self._halt_at = -math.inf

    @contextmanager
    def storage_faults(self) -> Iterator[None]:
        """Halt the search where the block cannot write, instead of raising: nothing may happen off the record."""
        try:
            yield
        except OSError as error:
            self.fault = self.fault or error
            self.halt()


def _gpu_hours(journal: Journal, gpus: float) -> float:
    return gpus * journal.place_seconds / 3600
