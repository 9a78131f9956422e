"""How a running search is stopped: by a signal, by storage that fails, or because nothing runs any more."""

import logging
import signal
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType

from ray import tune
from ray.tune.experiment import Trial

from fer_search.tuning.limit import Limit

GRACE_SECONDS = 20.0
"""How long the epochs of running trials may take after SIGTERM: what sends it kills half a minute later."""

logger = logging.getLogger(__name__)


@contextmanager
def stopped_by_signals(limit: Limit) -> Iterator[None]:
    """Let SIGINT and SIGTERM stop the search while the block runs: the first after running epochs, the second at once.

    Outside of the main thread, where Python does not allow it, signals are left as they are.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(number: int, _: FrameType | None) -> None:
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


class HaltStopper(tune.Stopper):  # type: ignore[misc]  # Ray has no types
    """Ends the experiment, in the middle of epochs if need be, when the limit says so."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit

    def __call__(self, trial_id: str, result: dict[str, object]) -> bool:
        """Stop no trial for its results; the scheduler does."""
        return False

    def stop_all(self) -> bool:
        """Return whether all is to stop now."""
        return self.limit.halted


class StopCallback(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Says that the search is stopping, and stops at once where no trial is left that could end an epoch."""

    def __init__(self, limit: Limit) -> None:
        self.limit = limit
        self._said = False

    def on_step_end(self, iteration: int, trials: list[Trial], **info: object) -> None:
        """Look at the limit; Tune calls this several times a second."""
        if not self.limit.stopping:
            return
        if not self._said:
            self._said = True
            logger.warning(
                "%s: each trial stops after the epoch that it is in; once more to stop at once", self.limit.reason
            )
        if not any(trial.status == Trial.RUNNING for trial in trials):
            self.limit.halt()
