"""What a run is doing, from what is on disk: at any moment, from any process, and after a crash."""

import fcntl
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_search.errors import InvalidInput, problem
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import TrialRecord, read_events, read_journal
from fer_search.runs import LOCK, RESULT, SETTINGS, read_json
from fer_search.tracking_state import DESCRIPTION, num_unsent, read_description, read_tracking_state

STATES = {"FINISHED": "finished", "KILLED": "stopped", "FAILED": "failed", "RUNNING": "killed"}
"""What a run that does not run has come to, by what its last process said of its end: RUNNING if it could not."""
TRAININGS = ("train", "retrain", "fold")


@dataclass(frozen=True)
class RunStatus:
    """A search, a race, a calibration or a training in `directory` as it stands.

    `state` is running, finished, stopped, failed, or killed. `last_event` is when its journal was last written to, in
    seconds since the epoch. `num_trials` is how many it is to have, where that is known beforehand.
    """

    directory: Path
    kind: str
    state: str
    last_event: float | None
    trials: list[TrialRecord]
    num_trials: int | None
    unsent: int
    tracking_error: str | None

    @property
    def counts(self) -> dict[str, int]:
        """How many trials are in each state; RUNNING ones of a run that does not run were interrupted."""
        return dict(Counter(trial.state for trial in self.trials))

    @property
    def num_epochs(self) -> int:
        """How many epochs were trained."""
        return sum(len(trial.epochs) for trial in self.trials)

    @property
    def running(self) -> list[TrialRecord]:
        """The trials that a worker has, or had when the run was interrupted."""
        return [trial for trial in self.trials if trial.state == "RUNNING"]

    @property
    def troubled(self) -> list[TrialRecord]:
        """The trials that failed, for good or once."""
        return [trial for trial in self.trials if trial.state == "FAIL" or trial.failures]

    @property
    def lacking(self) -> str:
        """What MLflow does not have of the run: events, or only how it ended."""
        if self.unsent:
            return f"{self.unsent} events"
        return "its end" if self.tracking_error and self.state != "running" else ""

    @property
    def next_step(self) -> str:
        """What going on with the run would do."""
        if self.state == "running":
            return "nothing to resume: it is running"
        if self.state == "finished":
            return "nothing to resume: it is finished"
        if self.kind != "search":
            return "the same command goes on from the last epoch of each training"
        open_trials = sum(not trial.ended for trial in self.trials)
        left = max((self.num_trials or 0) - len(self.trials), 0)
        return (
            f"fer-search resume {self.directory.name}: {open_trials} trials go on from their last epochs or wait at a "
            f"rung, {left} are still to be started"
        )


def read_status(directory: Path) -> list[RunStatus]:
    """Return how the run in `directory` stands, and then those below it: a race, retrainings and their seeds.

    Raises InvalidInput where there is no run.
    """
    found = sorted(path.parent for path in directory.rglob(SETTINGS))
    if directory not in found:
        raise InvalidInput(problem(directory, "run", "must be a search or a training", "nothing of the kind"))
    return [_status_of(each) for each in found]


def _status_of(directory: Path) -> RunStatus:
    settings = read_json(directory / SETTINGS)
    times = [event["time"] for event, _ in read_events(directory / JOURNAL)]
    return RunStatus(
        directory,
        settings["kind"],
        _state(directory, settings["kind"]),
        max(times, default=None),
        read_journal(directory / JOURNAL),
        _num_trials(settings),
        num_unsent(directory),
        read_tracking_state(directory).error,
    )


def _state(directory: Path, kind: str) -> str:
    if is_locked(directory):
        return "running"
    if not (directory / DESCRIPTION).exists():  # what only holds trainings, as of the folds of label-noise
        return "finished" if (directory / RESULT).exists() else "stopped"
    status = read_description(directory).status
    if status == "FINISHED" and kind in TRAININGS and not (directory / RESULT).exists():
        return "killed"  # between its last epoch and its figures
    return STATES[status]


def _num_trials(settings: dict[str, Any]) -> int | None:
    if settings["kind"] in TRAININGS:
        return 1
    return settings.get("num_trials")


def is_locked(directory: Path) -> bool:
    """Return whether a process writes to the run."""
    path = directory / LOCK
    if not path.exists():
        return False
    with path.open() as file:
        try:
            fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
        except BlockingIOError:
            return True
    return False
