"""Trainings that all run to the end, in their order, as a state for Ray to work through; nothing is stopped."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from fer_search.journal import Journal, TrialRecord
from fer_search.tuning.space import Point
from fer_search.tuning.whole_trainings import WholeTrainings


@dataclass(frozen=True)
class Training:
    """A complete parameter set, and the `point` that says in the journal which one it is."""

    parameters: Mapping[str, Any]
    point: Point


class ExhaustiveState(WholeTrainings):
    """Runs each of `trainings` to the `horizon`, as TrialState says; its number is its place among them.

    A new ExhaustiveState on the same journal goes on where the one before was.
    """

    def __init__(self, trainings: Sequence[Training], journal: Journal, *, metric: str, horizon: int) -> None:
        super().__init__(journal, metric=metric, horizon=horizon)
        self.trainings = trainings

    @property
    def num_waiting(self) -> int:
        """How many trainings have not ended and no worker has."""
        return sum(1 for _ in self._waiting())

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run."""
        return not self._running and next(self._waiting(), None) is None

    def next_trial(self) -> TrialRecord | None:
        """Return the first training that has not ended and that no worker has, or None if there is none."""
        number = next(self._waiting(), None)
        if number is None:
            return None
        if number not in self.journal.trials:
            training = self.trainings[number]
            self.journal.trial_started(number, training.parameters, point=training.point)
        return self._begin(number)

    def _waiting(self) -> Iterator[int]:
        known = self.journal.trials
        free = (n for n in range(len(self.trainings)) if n not in self._running)
        return (n for n in free if n not in known or not known[n].ended)
