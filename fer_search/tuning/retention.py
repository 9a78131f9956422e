"""Which checkpoints of a search stay on the disk, and for how long."""

from pathlib import Path

from fer_search.checkpoints import NUM_KEPT, Checkpoints
from fer_search.tuning.trial_state import TrialState


class Retention:
    """Removes what no trial in `checkpoints` needs any more.

    A trial that runs has its newest checkpoint and the one before, one that waits its newest. Of those that have ended
    the `finalists` keep their last, the others none.
    """

    def __init__(self, state: TrialState, checkpoints: Path) -> None:
        self.state, self.checkpoints = state, checkpoints
        self._finalists = state.finalists

    def stopped(self, number: int) -> None:
        """Remove what is not needed now that a trial has stopped, for good or to wait."""
        ousted = self._finalists - self.state.finalists
        self._finalists = self.state.finalists
        for each in {number, *ousted}:
            self._tidy(each)

    def sweep(self) -> None:
        """Remove what is not needed of any trial, such as what a process left that was killed before it could."""
        for directory in self.checkpoints.glob("trial_*"):
            self._tidy(int(directory.name.removeprefix("trial_")))
        if self.checkpoints.exists() and not any(self.checkpoints.iterdir()):
            self.checkpoints.rmdir()

    def _tidy(self, number: int) -> None:
        stored = Checkpoints(trial_directory(self.checkpoints, number))
        record = self.state.journal.trials[number]
        if record.ended and number not in self._finalists:
            stored.remove()
        elif record.state != "RUNNING":
            stored.keep(1)


def trial_directory(checkpoints: Path, number: int) -> Path:
    """Return where the checkpoints of a trial are."""
    return checkpoints / f"trial_{number:05d}"


def most_checkpoints(*, running: int, waiting: int, finalists: int, trials: int) -> int:
    """Return how many checkpoints there are at most while so many of the trials run, wait and have ended as finalists.

    One that runs has one more while it writes it.
    """
    return min(trials, running + waiting + finalists) + NUM_KEPT * running
