"""Writes what Ray Tune's driver sees into the journal."""

from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from fer_search.journal import Journal


class JournalCallback(tune.Callback):  # type: ignore[misc]  # Ray has no types
    """Writes what Tune tells into the journal at `path`; it is pickled into Ray's state, so it holds no open file."""

    def __init__(self, path: Path, *, horizon: int) -> None:
        self.path = path
        self.horizon = horizon
        self._journal: Journal | None = None

    def __getstate__(self) -> dict[str, Any]:
        return {**self.__dict__, "_journal": None}

    @property
    def journal(self) -> Journal:
        """The journal, opened at the first event of this process."""
        if self._journal is None:
            self._journal = Journal(self.path)
        return self._journal

    def on_trial_start(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record a trial that starts or resumes."""
        self.journal.trial_started(trial.config["trial"], trial.config["parameters"])

    def on_trial_result(
        self, iteration: int, trials: list[Trial], trial: Trial, result: dict[str, Any], **info: Any
    ) -> None:
        """Record an epoch; a diverged one has no metrics to record."""
        if "diverged" not in result:
            self.journal.epoch_ended(trial.config["trial"], int(result["training_iteration"]), result["metrics"])

    def on_trial_complete(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record a trial that Tune ended without an error."""
        last = trial.last_result or {}
        if "diverged" in last:
            self.journal.trial_ended(trial.config["trial"], "FAIL", f"diverged: {last['diverged']}")
        elif int(last.get("training_iteration", 0)) >= self.horizon:
            self.journal.trial_ended(trial.config["trial"], "COMPLETE")
        else:
            self.journal.trial_ended(trial.config["trial"], "PRUNED")

    def on_trial_error(self, iteration: int, trials: list[Trial], trial: Trial, **info: Any) -> None:
        """Record a trial that failed for good."""
        # Tune writes the error itself after this call.
        self.journal.trial_ended(trial.config["trial"], "FAIL", f"see error.txt in {trial.path}")
