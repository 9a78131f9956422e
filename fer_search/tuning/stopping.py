"""How a running search is stopped: by a signal, by storage that fails, or because nothing runs any more."""

import logging
import math
import signal
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

import ray
from ray import tune
from ray.tune.experiment import Trial

from fer_search.tuning.limit import Limit

GRACE_SECONDS = 20.0
"""How long the epochs of running trials may take after SIGTERM: what sends it kills half a minute later."""
REPEAT_SECONDS = 0.5
"""A signal that comes again so soon is the same one: `timeout` sends it to its child and to their group."""

logger = logging.getLogger(__name__)


@contextmanager
def stopped_by_signals(limit: Limit) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the search while the block runs: the first after running epochs, the second at once.

    Outside of the main thread, where Python does not allow it, signals are left as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    last = -math.inf

    def stop(number: int, _: FrameType | None) -> None:
        nonlocal last
        now = time.monotonic()
        repeated, last = now < last + REPEAT_SECONDS, now
        if repeated:
            return
        if limit.stopping:
            limit.halt()
        else:
            limit.stop(signal.Signals(number).name, grace=GRACE_SECONDS if number == signal.SIGTERM else None)

    before = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


class Stopping(tune.Callback, tune.Stopper):  # type: ignore[misc]  # Ray has no types
    """Says that the search is stopping, and ends the experiment, in the middle of epochs if need be, when it is halted.

    It is halted too where no trial is left that could end an epoch.
    """

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._said = self._killed = False

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """Stop no trial for its results; the scheduler does."""
        return False

    def stop_all(self) -> bool:
        """Return whether all is to stop now."""
        return self._killed

    def on_step_begin(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Kill the workers of a search that is halted: Tune would give each ten seconds to end its epoch."""
        if self.limit.halted and not self._killed:
            self._killed = True
            for trial in trials:
                if trial.temporary_state.ray_actor is not None:
                    ray.kill(trial.temporary_state.ray_actor)

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Look at the limit; Tune calls this several times a second."""
        if not self.limit.stopping or self.limit.halted:
            return
        if not self._said:
            self._said = True
            logger.warning(
                "%s: each trial stops after the epoch that it is in%s; once more to stop at once",
                self.limit.reason,
                f", at the latest in {GRACE_SECONDS:.0f} s" if self.limit.reason == "SIGTERM" else "",
            )
        if not any(trial.status == Trial.RUNNING for trial in trials):
            self.limit.halt()
