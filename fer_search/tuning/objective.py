"""What can be searched: the Objective contract, and its adapter onto a Tune trainable."""

import gc
import math
import sys
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol, Self, runtime_checkable

from ray import tune

from fer_search.checkpoints import Checkpoints, Saves
from fer_search.tuning.connection import Resources
from fer_search.tuning.retention import trial_directory


class ReportLike(Saves, Protocol):
    """One unit of resource done. It is saved before the next one is asked for, if at all."""

    @property
    def metrics(self) -> Mapping[str, float]:
        """Finite floats by name."""
        ...


@dataclass(frozen=True)
class Report:
    """One unit of resource done: what it achieved, finite floats by name, and what stores the state after it.

    `save` is called with a directory that exists, before the next report is asked for, if at all.
    """

    metrics: Mapping[str, float]
    save: Callable[[Path], object]


class Objective(Protocol):
    """Anything that can be searched, such as a generator function.

    Called with a complete parameter set and, to resume, the directory that a report was saved to, it returns an
    iterator of one report per unit of resource; stopping early is to stop asking. It raises FloatingPointError when it
    diverges, and MemoryError when it does not fit.
    """

    def __call__(self, parameters: Mapping[str, Any], resume_from: Path | None) -> Iterator[ReportLike]:
        """Start or resume a training run."""
        ...


@runtime_checkable
class Shrinkable(Objective, Protocol):
    """An objective that knows a way to do with less memory."""

    def smaller(self, parameters: Mapping[str, Any]) -> Self | None:
        """Return what does the same with less memory at a time, or None where there is no less for these parameters."""
        ...


class ObjectiveTrainable(tune.Trainable):  # type: ignore[misc]  # Ray has no types
    """Runs a stretch of a trial, from its newest checkpoint on, a report per step; one actor serves many trials.

    The config is `{"trial": number, "parameters": {...}, "places": number}`. A step's checkpoint is on disk before its
    report leaves, and a stretch begins by repeating the report of the checkpoint that it starts from: whoever was
    killed between the two may not have heard of it. Divergence is one finite, worst value marked `diverged`: an
    exception would be retried, and a NaN compares with nothing. A checkpoint that cannot be written is marked `storage`
    likewise: it is not the trial that failed. A trial that does not fit is marked `memory` where it has others beside
    it on its GPU, of which it can be relieved, and else goes on from its newest checkpoint with less memory.
    """

    def setup(
        self, config: dict[str, Any], *, objective: Objective, metric: str, checkpoints: Path, resources: Resources
    ) -> None:
        """Keep the objective, which came once through Ray's object store, for all trials of this actor."""
        gc.freeze()  # what was imported for it stays: no trial has to look through all of that for garbage
        self._objective, self._metric, self._root, self._resources = objective, metric, checkpoints, resources
        self._fitting = objective  # what this trial is run by: as asked, or with less memory
        self._reports: Iterator[ReportLike] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Make the actor ready for another trial."""
        self.cleanup()
        self._fitting = self._objective
        return True

    def step(self) -> dict[str, Any]:
        """Run the objective to its next report."""
        while True:
            try:
                return self._advance()
            except FloatingPointError as error:
                return self._diverged(str(error))
            except MemoryError as error:
                message = str(error)
            # Not before the exception is gone, whose traceback holds what did not fit.
            if self._resources.of(self.config["places"]).shares_gpu:
                self.cleanup()
                return self._failed({"memory": message})
            self._shrink(message)

    def cleanup(self) -> None:
        """Let go of the training run, and with it of its network."""
        self._reports = None

    def _advance(self) -> dict[str, Any]:
        if self._reports is None:
            self._checkpoints = Checkpoints(trial_directory(self._root, self.config["trial"]))
            last = self._checkpoints.newest()
            self._reports = iter(self._fitting(self.config["parameters"], last.directory if last else None))
            self._epoch = last.epoch if last else 0
            if last:
                return self._result(last.metrics)
        try:
            report = next(self._reports)
        except StopIteration:
            raise RuntimeError(f"the objective ended after {self._epoch} reports") from None
        metrics = {name: float(value) for name, value in report.metrics.items()}
        for name, value in metrics.items():
            if not math.isfinite(value):
                return self._diverged(f"{name} is {value}")
        self._epoch += 1
        try:
            self._checkpoints.save(self._epoch, metrics, report)
        except OSError as error:
            self.cleanup()
            return self._failed({"storage": (error.errno, error.strerror, error.filename)})
        return self._result(metrics)

    def _shrink(self, message: str) -> None:
        """Take less memory for the rest of this trial, or raise MemoryError where there is no less."""
        self.cleanup()
        fitting = self._fitting
        smaller = fitting.smaller(self.config["parameters"]) if isinstance(fitting, Shrinkable) else None
        if smaller is None:
            raise MemoryError(f"a trial does not fit, not even with the least memory that it can do with: {message}")
        self._fitting = smaller

    def _result(self, metrics: dict[str, float]) -> dict[str, Any]:
        return {"epoch": self._epoch, "metrics": metrics, self._metric: metrics[self._metric]}

    def _diverged(self, message: str) -> dict[str, Any]:
        self.cleanup()
        return self._failed({"diverged": message})

    def _failed(self, why: dict[str, Any]) -> dict[str, Any]:
        return {"epoch": self._epoch + 1, "metrics": {}, self._metric: -sys.float_info.max, **why}
