"""What states share whose trainings all run to the horizon: nothing is stopped, and a restart loses nothing."""

from collections.abc import Mapping

from fer_search.journal import Journal, TrialRecord


class WholeTrainings:
    """The part of a TrialState, on `journal`, that does not depend on which trainings there are and which is next."""

    def __init__(self, journal: Journal, *, metric: str, horizon: int) -> None:
        self.journal, self._metric, self.horizon = journal, metric, horizon
        self._running: set[int] = set()

    @property
    def metric(self) -> str:
        """What is maximised."""
        return self._metric

    @property
    def num_running(self) -> int:
        """How many trainings a worker has."""
        return len(self._running)

    @property
    def num_places(self) -> int:
        """How many places those take: one that found too little memory in one has several."""
        return sum(self.journal.trials[number].places for number in self._running)

    @property
    def finalists(self) -> frozenset[int]:
        """None: what these trainings are run for is their figures."""
        return frozenset()

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

    def retry(self, number: int, message: str, *, node_lost: bool = False) -> None:
        """Let a training that failed be tried again, from its last epoch on."""
        if number in self._running:
            self.journal.trial_retried(number, message, node_lost=node_lost)
            self.interrupt(number)

    def widen(self, number: int) -> None:
        """Let a running training that does not fit beside others come again with twice the places."""
        if number in self._running:
            self.journal.trial_widened(number, 2 * self.journal.trials[number].places)
            self.interrupt(number)

    def fail(self, number: int, message: str) -> None:
        """Record a training that diverged or broke."""
        self._end(number, "FAIL", message)

    def close(self) -> None:
        """Nothing waits at the end."""

    def _begin(self, number: int) -> TrialRecord:
        """Give a training that is in the journal to a worker, from where it is."""
        if self.journal.trials[number].state == "PAUSED":
            self.journal.trial_resumed(number)
        self._running.add(number)
        return self.journal.trials[number]

    def _end(self, number: int, state: str, message: str = "") -> None:
        self._running.discard(number)
        self.journal.trial_ended(number, state, message)
