"""The process that sends a run's journal to MLflow, and to Optuna's storage, while the run goes on.

    python -m fer_search.tracking_writer RUN

It is a process of its own so that nothing that MLflow does can slow, stop or crash a search. Whoever started it holds
its standard input open, writes there at the end how the run ended, in MLflow's words, and closes it; whoever was killed
wrote nothing. Then what is left is sent, the runs are closed, and this process ends.
"""

import fcntl
import logging
import os
import signal
import sys
import time
from collections.abc import Iterable, Iterator
from contextlib import closing, contextmanager, suppress
from dataclasses import replace
from itertools import islice
from pathlib import Path

from mlflow.exceptions import MlflowException
from optuna.distributions import json_to_distribution
from sqlalchemy.exc import SQLAlchemyError

from fer_search.errors import InvalidInput, problem
from fer_search.follower import MOST_AT_ONCE, Follower, each, reason_of
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import TrialRecord, read_events, read_journal
from fer_search.journal_tracker import JournalTracker
from fer_search.recipe import recipe_tags
from fer_search.study_mirror import FILE_NAME as STUDIES
from fer_search.study_mirror import StudyMirror
from fer_search.tracking import Tracker
from fer_search.tracking_state import (
    RUNNING,
    RunDescription,
    TrackingState,
    read_description,
    read_tracking_state,
    write_tracking_state,
)

LOCK = ".tracking.lock"
KILLED = "KILLED"
EVERY_SECONDS = 1.0
CLOSING_SECONDS = 20.0
"""How long a tracking server that has gone away since the last event is waited for."""
SHARE_OF_MACHINE = 0.025
"""What each store may take of all cores, and of the disk's time, while a search reports faster than it can write."""
NICENESS = 10
"""On a machine without an idle core this process falls behind rather than take one from the search."""

logger = logging.getLogger(__name__)


def main() -> None:
    """Send the journal of the run in the directory that is the only argument until standard input is closed."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("urllib3").setLevel(logging.ERROR)
    logging.getLogger("mlflow").setLevel(logging.CRITICAL)  # it prints a traceback of what it raises too
    logging.getLogger("optuna.storages._rdb.storage").setLevel(logging.WARNING)  # it tells of a study's birth
    os.environ.setdefault("MLFLOW_SUPPRESS_PRINTING_URL_TO_STDOUT", "true")
    for number in (signal.SIGINT, signal.SIGTERM):  # meant for the run, which will say how it ended
        signal.signal(number, signal.SIG_IGN)
    os.nice(NICENESS)
    directory = Path(sys.argv[1])
    with sending(directory, wait=True):
        send_until_closed(directory)


def send_until_closed(directory: Path) -> None:
    """Send the journal in `directory` from where it was left until standard input says how the run ended."""
    journal, description = directory / JOURNAL, read_description(directory)
    offset = read_tracking_state(directory).offset
    tracker = journal_tracker(description, trials=read_journal(journal, until=offset))

    def told(offset: int, error: str | None) -> None:
        with suppress(OSError):  # a full disk: what is sent is sent, and is only sent again
            write_tracking_state(directory, TrackingState(offset, error))

    follower = Follower(
        journal, tracker.receive, name="MLflow", every=EVERY_SECONDS, share=_share(), offset=offset, told=told
    )
    with _mirrored(directory, description), follower:
        status = sys.stdin.readline().strip() or KILLED
    if journal.exists() and not follower.unsent:
        error = _close(tracker, status, patience=CLOSING_SECONDS if follower.has_taken else 0)
        told(read_tracking_state(directory).offset, error)


def _close(tracker: JournalTracker, status: str, *, patience: float) -> str | None:
    """Close the runs, tried again for so many seconds, and return what the tracking server had against it."""
    deadline = time.monotonic() + patience
    while True:
        try:
            tracker.close(status)
        except Exception as error:  # whatever a tracking server answers, this is the end
            if time.monotonic() + EVERY_SECONDS > deadline:
                return reason_of(error)
            time.sleep(EVERY_SECONDS)
        else:
            return None


@contextmanager
def _mirrored(directory: Path, description: RunDescription) -> Iterator[None]:
    """Keep the Optuna study of the run in `directory`, if it is a search, while the block runs."""
    if description.study is None:
        yield
        return
    mirror = StudyMirror(
        directory.parent / STUDIES,
        search_id=description.search_id,
        name=description.title,
        metric=description.study["metric"],
        domains={name: json_to_distribution(domain) for name, domain in description.study["domains"].items()},
        attributes_of=recipe_tags,
    )
    follower = Follower(
        directory / JOURNAL, each(mirror.receive), name="Optuna's storage", every=EVERY_SECONDS, share=_share()
    )
    with closing(mirror), follower:
        yield
    if follower.unsent:
        logger.warning("%s: %d events were not taken", mirror.path, follower.unsent)


def _share() -> float:
    """Return how much of the time a store may be written to while the search runs."""
    return min(1.0, SHARE_OF_MACHINE * (os.cpu_count() or 1))


@contextmanager
def sending(directory: Path, *, wait: bool) -> Iterator[None]:
    """Be the only one who sends the journal in `directory`; raises InvalidInput if another one is, unless to `wait`.

    The writer of a search that was killed may still be at it when the next one starts.
    """
    with (directory / LOCK).open("w") as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | (0 if wait else fcntl.LOCK_NB))
        except BlockingIOError:
            rule = "must not be sent to MLflow by another process"
            raise InvalidInput(problem(directory, "run", rule, "one that does")) from None
        yield


def send_all(directory: Path, uri: str | None = None) -> int:
    """Send the whole journal in `directory` and close its runs, at another `uri` than theirs if one is given.

    Returns the number of events; what MLflow has already is not doubled. Raises InvalidInput where another process is
    at it, and where MLflow does not answer or refuses.
    """
    journal, description = directory / JOURNAL, read_description(directory)
    tracker = journal_tracker(replace(description, uri=uri or description.uri))
    count, end = 0, 0
    with sending(directory, wait=False):
        try:
            while events := list(islice(read_events(journal, offset=end), MOST_AT_ONCE)):
                tracker.receive([event for event, _ in events])
                count, end = count + len(events), events[-1][1]
            if count:
                tracker.close(KILLED if description.status == RUNNING else description.status)
        except (MlflowException, SQLAlchemyError, OSError) as error:
            rule = "must be an MLflow store that answers and takes what it is sent"
            raise InvalidInput(problem(uri or description.uri, "tracking-uri", rule, error)) from error
        if uri in (None, description.uri):
            write_tracking_state(directory, TrackingState(end))
    return count


def journal_tracker(description: RunDescription, trials: Iterable[TrialRecord] = ()) -> JournalTracker:
    """Return the tracker of a run's journal, of which `trials` are in MLflow."""
    return JournalTracker(Tracker(description.uri), description, tags_of=recipe_tags, trials=trials)


if __name__ == "__main__":
    main()
