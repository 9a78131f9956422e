"""A training that costs nothing, or nothing but time, for what a search costs around its trainings."""

import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class FreeReport:
    """An epoch that stores nothing: what a checkpoint costs is the same whatever is compared."""

    metrics: dict[str, float]

    def save(self, directory: Path) -> None:
        """Store nothing."""


@dataclass(frozen=True)
class FreeTraining:
    """A training whose epochs report `metrics_of(parameters, epoch)` and last so many `seconds`."""

    metrics_of: Callable[[Mapping[str, Any], int], dict[str, float]]
    seconds: float = 0.0

    def __call__(self, parameters: Mapping[str, Any], resume_from: Path | None) -> Iterator[FreeReport]:
        """Report after every epoch."""
        first = int(resume_from.name.removeprefix("epoch_")) + 1 if resume_from else 1
        for epoch in range(first, parameters["epochs"] + 1):
            time.sleep(self.seconds)
            yield FreeReport(self.metrics_of(parameters, epoch))
