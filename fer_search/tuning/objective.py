"""What can be searched: the Objective contract, and its adapter onto a Tune trainable."""

import logging
import math
import shutil
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Protocol

from ray import tune

logger = logging.getLogger(__name__)


class Report(Protocol):
    """One unit of resource done: what it achieved, and a way to store the state after it."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Finite floats by name."""
        ...

    def save(self, directory: Path) -> None:
        """Store the state in `directory`; called at most before the next report is asked for."""
        ...


class Objective(Protocol):
    """Anything that can be searched.

    Called with a complete parameter set and, to resume, the directory that a report was saved to, it returns an
    iterator of one report per unit of resource; stopping early is to stop asking. It raises FloatingPointError when it
    diverges.
    """

    def __call__(self, parameters: Mapping[str, Any], resume_from: Path | None) -> Iterator[Report]:
        """Start or resume a training run."""
        ...


class ObjectiveTrainable(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """Runs an Objective as a Tune trial, a report per step; one actor serves many trials.

    A trial's config is `{"trial": number, "parameters": {...}}`. Divergence is one finite, worst value marked
    `diverged`, then the end of the trial: an exception would be retried, and a NaN is never stopped by a scheduler.
    """

    def setup(self, config: dict[str, Any], *, objective: Objective, metric: str, horizon: int) -> None:
        """Keep the objective, which came once through Ray's object store, for all trials of this actor."""
        self._objective, self._metric, self._horizon = objective, metric, horizon
        self._reports: Iterator[Report] | None = None
        self._report: Report | None = None
        self._resume_from: Path | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make the actor ready for another trial."""
        self.cleanup()
        return True

    def step(self) -> dict[str, Any]:
        """Run the objective to its next report."""
        try:
            if self._reports is None:
                self._reports = iter(self._objective(self.config["parameters"], self._resume_from))
            report = self._report = next(self._reports)
        except FloatingPointError as error:
            return self._diverged(str(error))
        except StopIteration:
            raise RuntimeError(f"the objective ended after {self.iteration} of {self._horizon} reports") from None
        self._forget_checkpoint()
        metrics = {name: float(value) for name, value in report.metrics.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                return self._diverged(f"{name} is {value}")
        return {"metrics": metrics, self._metric: metrics[self._metric], "done": self.iteration + 1 >= self._horizon}

    def save_checkpoint(self, checkpoint_dir: str) -> None:
        """Store the state after the last report; a diverged trial has none."""
        if self._report is not None:
            self._report.save(Path(checkpoint_dir))

    def load_checkpoint(self, checkpoint: str) -> None:
        """Resume from `checkpoint` at the next step; copied, since Ray removes the directory after this call."""
        self.cleanup()
        self._resume_from = Path(tempfile.mkdtemp(prefix="fer_search_"))
        shutil.copytree(checkpoint, self._resume_from, dirs_exist_ok=True)

    def restore(self, checkpoint: Any) -> bool:
        """Restore from a checkpoint, or start from the first step if a kill came between its removal and its successor.

        What is then reported again is in the journal already, and a rung that was passed is not judged again.
        """
        try:
            return bool(super().restore(checkpoint))
        except (OSError, ValueError) as error:  # Ray raises ValueError for a checkpoint that is not there
            logger.warning("%s: the trial starts again", error)
            self.cleanup()
            self._iteration = 0
            return True

    def cleanup(self) -> None:
        """Let go of the training run, and with the last report of its network."""
        self._reports = self._report = None
        self._forget_checkpoint()

    def _diverged(self, message: str) -> dict[str, Any]:
        self.cleanup()
        return {"metrics": {}, self._metric: -sys.float_info.max, "diverged": message, "done": True}

    def _forget_checkpoint(self) -> None:
        if self._resume_from is not None:
            shutil.rmtree(self._resume_from, ignore_errors=True)
            self._resume_from = None
