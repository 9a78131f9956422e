"""A search's (or a race's) state behind Ray Tune's TrialScheduler interface."""

import logging
from typing import Any

from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from fer_search.journal import DIVERGED
from fer_search.tuning.limit import Limit
from fer_search.tuning.retention import Retention
from fer_search.tuning.trial_state import TrialState

logger = logging.getLogger(__name__)


class StateScheduler(FIFOScheduler):  # type: ignore[misc]  # Ray has no types
    """Tells the state what workers report, and Ray whether they go on; none does beyond the `limit`.

    Ray's own ASHAScheduler is not saved with an experiment: after a restart its rungs are empty (ray#30838).
    """

    def __init__(self, state: TrialState, retention: Retention, *, limit: Limit) -> None:
        super().__init__()
        self.state, self.retention, self.limit = state, retention, limit

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accept Tune's call; metric and mode are the state's."""
        return True

    def on_trial_add(self, tune_controller: object, trial: Trial) -> None:
        """Make the trial's directory now and not with its worker: of a trial that a signal stopped before it had one,
        Ray raises RuntimeError as it gathers the results.
        """
        trial.init_local_path()

    def choose_trial_to_run(self, tune_controller: Any) -> None:
        """Leave it to Tune, which starts trials as they came; what waits when the limit is reached never starts.

        A trial of Ray's does not come again, so there is none to choose. Ray's FIFO looks through all that ever ran.
        """
        with self.limit.storage_faults():
            if not self.limit.allows(self.state.num_running):
                for trial in [each for each in tune_controller.get_live_trials() if each.status == Trial.PENDING]:
                    self.state.interrupt(trial.config["trial"])
                    tune_controller.stop_trial(trial)

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Record a report and decide."""
        with self.limit.storage_faults():
            return self._decide(trial, result)
        return str(TrialScheduler.STOP)

    def _decide(self, trial: Trial, result: dict[str, Any]) -> str:
        number = trial.config["trial"]
        if "storage" in result:
            raise OSError(*result["storage"])
        if "memory" in result:
            logger.warning("trial %d does not fit beside others and gets twice the place: %s", number, result["memory"])
            self.state.widen(number)
            self.retention.stopped(number)
            return str(TrialScheduler.STOP)
        if "diverged" in result:
            self.state.fail(number, DIVERGED + result["diverged"])
            self.retention.stopped(number)
            return str(TrialScheduler.STOP)
        prefix = "metrics/"  # Tune hands over a flattened result
        metrics = {key.removeprefix(prefix): value for key, value in result.items() if key.startswith(prefix)}
        goes_on = self.state.report(number, result["epoch"], metrics)
        if goes_on and not self.limit.allows(self.state.num_running):
            self.state.interrupt(number)
        elif goes_on:
            return str(TrialScheduler.CONTINUE)
        self.retention.stopped(number)
        return str(TrialScheduler.STOP)
