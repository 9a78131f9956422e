"""Trainings that all run to the end, in their order, as a state for Ray to work through; nothing is stopped."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fer_search.journal import Journal, TrialRecord
from fer_search.tuning.space import Point


@dataclass(frozen=True)
class Training:
    """A complete parameter set, and the `point` that says in the journal which one it is."""

    parameters: Mapping[str, Any]
    point: Point


class ExhaustiveState:
    """Runs each of `trainings` to the `horizon`, as TrialState says; its number is its place among them.

    A new ExhaustiveState on the same journal goes on where the one before was.
    """

    def __init__(self, trainings: Sequence[Training], journal: Journal, *, metric: str, horizon: int) -> None:
        self.trainings, self.journal, self._metric, self.horizon = trainings, journal, metric, horizon
        self._running: set[int] = set()

    @property
    def metric(self) -> str:
        """What Ray is told to maximise."""
        return self._metric

    @property
    def num_running(self) -> int:
        """How many trainings a worker has."""
        return len(self._running)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run."""
        return not self._running and self._next() is None

    def next_trial(self) -> TrialRecord | None:
        """Return the first training that has not ended and that no worker has, or None if there is none."""
        number = self._next()
        if number is None:
            return None
        if number not in self.journal.trials:
            training = self.trainings[number]
            self.journal.trial_started(number, training.parameters, point=training.point)
        elif self.journal.trials[number].state == "PAUSED":
            self.journal.trial_resumed(number)
        self._running.add(number)
        return self.journal.trials[number]

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch and return whether the training goes on."""
        self.journal.epoch_ended(number, epoch, metrics)
        if epoch < self.horizon:
            return True
        self._end(number, "COMPLETE")
        return False

    def interrupt(self, number: int) -> None:
        """Let a running training wait for the same command to go on."""
        self._running.discard(number)
        self.journal.trial_paused(number)

    def fail(self, number: int, message: str) -> None:
        """Record a training that diverged or broke."""
        self._end(number, "FAIL", message)

    def close(self) -> None:
        """Nothing waits at the end."""

    def _end(self, number: int, state: str, message: str = "") -> None:
        self._running.discard(number)
        self.journal.trial_ended(number, state, message)

    def _next(self) -> int | None:
        known = self.journal.trials
        free = (n for n in range(len(self.trainings)) if n not in self._running)
        return next((n for n in free if n not in known or not known[n].ended), None)
