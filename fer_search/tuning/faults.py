"""What goes wrong in workers: failures that are tried again, trials that fall silent, trials that are given up."""

import logging
import textwrap
import time
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.exceptions import ActorDiedError, ActorUnavailableError, LocalRayletDiedError, NodeDiedError
from ray.tune.experiment import Trial

from fer_search.journal import EPOCH_SECONDS
from fer_search.tuning.limit import Limit
from fer_search.tuning.retention import Retention
from fer_search.tuning.trial_state import TrialState

MAX_FAILURES = 2
"""How often a trial may fail in a row without an epoch in between, and be tried again."""
MAX_LOST_NODES = 20
"""How often a trial may lose its node likewise, as spot machines are lost: beyond that it is what takes them down."""
SILENCE_IN_EPOCHS = 10
SHORTEST_SILENCE_SECONDS = 600.0
FIRST_SILENCE_SECONDS = 7200.0
CHECK_SECONDS = 1.0
LONGEST_CHECK_SECONDS = 2.0
LONGEST_REASON = 200
NODE_DIED = "its node has died"  # Ray has no other sign of it than its message

logger = logging.getLogger(__name__)


class FailureCallback(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Puts failures on record, and lets the trial come again as it does after a pause, unless it fails all the time.

    Ray itself retries nothing: it counts failures over the whole life of a trial, and gives one up that is waiting for
    the next worker already when it hears twice of the same dead one. The tracebacks are kept in `directory`; Ray's own
    copies are in one that ends with it.
    """

    def __init__(self, state: TrialState, retention: Retention, directory: Path, *, limit: Limit) -> None:
        self.state, self.retention, self.directory, self.limit = state, retention, directory, limit

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Decide whether a trial whose worker failed, or was lost, is tried again or given up."""
        if self.limit.halted:
            return  # its worker was killed for that, and the trial goes on with the search
        number = trial.config["trial"]
        with self.limit.storage_faults():
            message = self._keep(trial)
            record, lost = self.state.journal.trials[number], is_loss_of_node(_take_error(trial))
            if record.lost_nodes_in_a_row < MAX_LOST_NODES if lost else record.failures_in_a_row < MAX_FAILURES:
                self.state.retry(number, message, node_lost=lost)
            else:
                self.state.fail(number, message)
                self.retention.stopped(number)

    def _keep(self, trial: Trial) -> str:
        """Keep the tracebacks of a trial, and return what was wrong and where they are."""
        text = Path(trial.error_file).read_text(errors="replace")
        path = self.directory / f"trial_{trial.config['trial']:05d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("a") as file:
            file.write(text)
        reason = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
        return f"{textwrap.shorten(reason, LONGEST_REASON, placeholder=' ...')} (see {path})"


def is_loss_of_node(error: Exception | None) -> bool:
    """Return whether what Ray raised says that a node went away or could not be reached, and not that work failed."""
    if isinstance(error, ActorDiedError):
        return error.preempted or NODE_DIED in str(error)
    return isinstance(error, ActorUnavailableError | NodeDiedError | LocalRayletDiedError)


def _take_error(trial: Trial) -> Exception | None:
    """Return what Ray raised, and leave nothing behind that the next failure could be taken for."""
    if trial.pickled_error_file is None:
        return None
    path = Path(trial.pickled_error_file)
    try:
        with path.open("rb") as file:
            error: Exception = ray.cloudpickle.load(file)
        path.unlink()
    except FileNotFoundError:
        return None
    return error


class Watchdog(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Kills the worker of a trial that reports nothing for long, so that it fails and is tried again.

    It is the driver that watches, since a worker that hangs, or was stopped, cannot. `allowed` is the silence in
    seconds; None: SILENCE_IN_EPOCHS times the longest epoch on record, but at least SHORTEST_SILENCE_SECONDS, and
    FIRST_SILENCE_SECONDS as long as none is. Waiting for resources is no silence, nor is the time in which the driver
    itself stood still: what the workers reported then it has yet to hear.
    """

    def __init__(self, state: TrialState, *, allowed: float | None = None) -> None:
        self.state, self.allowed = state, allowed
        self._silent: dict[str, float] = {}
        self._checked = time.monotonic()
        epochs = [metrics for record in state.journal.trials.values() for metrics in record.epochs]
        self._longest = max((metrics.get(EPOCH_SECONDS, 0.0) for metrics in epochs), default=0.0)

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Remember that the trial was heard, and how long its epoch took."""
        self._silent[trial.trial_id] = 0.0
        self._longest = max(self._longest, result.get("metrics", {}).get(EPOCH_SECONDS, 0.0))

    def on_step_end(self, iteration: int, trials: list[Trial], **info: Any) -> None:
        """Look for silent trials; Tune calls this several times a second."""
        passed = time.monotonic() - self._checked
        if passed < CHECK_SECONDS:
            return
        self._checked += passed
        passed = min(passed, LONGEST_CHECK_SECONDS)
        running = {trial.trial_id: trial for trial in trials if trial.status == Trial.RUNNING}
        self._silent = {trial_id: self._silent.get(trial_id, 0.0) + passed for trial_id in running}
        for trial_id, seconds in self._silent.items():
            if seconds > self._allowed():
                self._kill(running[trial_id], seconds)

    def _allowed(self) -> float:
        if self.allowed is not None:
            return self.allowed
        if not self._longest:
            return FIRST_SILENCE_SECONDS
        return max(SILENCE_IN_EPOCHS * self._longest, SHORTEST_SILENCE_SECONDS)

    def _kill(self, trial: Trial, seconds: float) -> None:
        number = trial.config["trial"]
        logger.warning("trial %d has reported nothing for %.0f s: its worker is killed", number, seconds)
        self._silent[trial.trial_id] = 0.0
        ray.kill(trial.temporary_state.ray_actor)
