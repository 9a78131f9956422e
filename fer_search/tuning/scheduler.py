"""A search's (or a race's) state behind Ray Tune's TrialScheduler interface."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from fer_search.journal import DIVERGED
from fer_search.tuning.limit import Limit
from fer_search.tuning.retention import Retention
from fer_search.tuning.trial_state import TrialState


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

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Record a report and decide."""
        number = trial.config["trial"]
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


class FailureCallback(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Tells the state of a trial that Ray gave up after its retries, and keeps the tracebacks in `directory`."""

    def __init__(self, state: TrialState, retention: Retention, directory: Path) -> None:
        self.state, self.retention, self.directory = state, retention, directory

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record the failure; Ray's own copy is in a directory that ends with it."""
        number = trial.config["trial"]
        text = Path(trial.error_file).read_text(errors="replace")
        path = self.directory / f"trial_{number:05d}.txt"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)
        reason = next((line.strip() for line in reversed(text.splitlines()) if line.strip()), "no message")
        self.state.fail(number, f"{reason} (see {path})")
        self.retention.stopped(number)
