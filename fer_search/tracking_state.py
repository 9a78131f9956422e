"""What is on disk about a run's tracking: what MLflow is told of it, and how far that has come.

<run>/tracking.json   what MLflow is told, written by the process that runs the search or the training
<run>/tracked.json    how much of the journal MLflow has, written by the process that sends it
"""

from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import read_events
from fer_search.runs import read_json, write_json

DESCRIPTION = "tracking.json"
STATE = "tracked.json"
RUNNING = "RUNNING"
NOTE = "mlflow.note.content"
"""The tag that MLflow's UI shows as a run's description, in Markdown."""


@dataclass(frozen=True)
class RunDescription:
    """What MLflow, and for a search Optuna's storage, is told of a run beside its journal.

    With `parent_params`, each trial is a child of one parent run, which `note` describes until it has ended; without,
    the only trial is the run. A search is an Optuna study too: `study` holds its `metric` and the `domains` of its
    parameters, as Optuna writes them in JSON. `status` is how the run ended, in MLflow's words, or RUNNING: then it
    runs, or was killed.
    """

    uri: str
    search_id: str
    kind: str
    title: str
    tags: Mapping[str, str]
    parent_params: Mapping[str, Any] | None
    study: Mapping[str, Any] | None = None
    note: str = ""
    status: str = RUNNING


@dataclass(frozen=True)
class TrackingState:
    """How many bytes of its journal MLflow has, and why the last attempt to send more failed, if it did."""

    offset: int = 0
    error: str | None = None


def write_description(directory: Path, description: RunDescription) -> None:
    """Put on disk what MLflow is told of the run in `directory`."""
    write_json(directory / DESCRIPTION, asdict(description))


def read_description(directory: Path) -> RunDescription:
    """Return what MLflow is told of the run in `directory`; raises InvalidInput where nothing is known of it."""
    stored = read_json(directory / DESCRIPTION)
    return RunDescription(**{key: value for key, value in stored.items() if key != "format"})


def mark_ended(directory: Path, status: str) -> None:
    """Put on disk how the run in `directory` ended."""
    write_description(directory, replace(read_description(directory), status=status))


def write_tracking_state(directory: Path, state: TrackingState) -> None:
    """Put on disk how far the journal in `directory` has been sent."""
    write_json(directory / STATE, asdict(state))


def read_tracking_state(directory: Path) -> TrackingState:
    """Return how far the journal in `directory` has been sent: nothing of it, where nobody has tried."""
    if not (directory / STATE).exists():
        return TrackingState()
    stored = read_json(directory / STATE)
    return TrackingState(stored["offset"], stored["error"])


def num_unsent(directory: Path) -> int:
    """Return how many events of the journal in `directory` MLflow does not have."""
    offset = read_tracking_state(directory).offset
    return sum(1 for _ in read_events(directory / JOURNAL, offset=offset))
