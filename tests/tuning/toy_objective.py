"""A quadratic that satisfies the Objective contract; workers load this and nothing of a search's own."""

import json
import math
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

HORIZON = 9


@dataclass(frozen=True)
class ToyReport:
    metrics: dict[str, float]
    epoch: int

    def save(self, directory: Path) -> None:
        (directory / "state.json").write_text(json.dumps(self.epoch))


@dataclass(frozen=True)
class ToyObjective:
    """A curve that rises to 1 - (x - 2)^2 / 100; x above 8 diverges, x below -9 gives NaN, at the second epoch."""

    seconds: float = 0.0
    broken: bool = False

    def __call__(self, parameters: Mapping[str, Any], resume_from: Path | None) -> Iterator[ToyReport]:
        first = json.loads((resume_from / "state.json").read_text()) + 1 if resume_from else 1
        for epoch in range(first, parameters["epochs"] + 1):
            time.sleep(self.seconds)
            if self.broken and epoch == 2:
                raise RuntimeError("the disk is on fire")
            score = (1 - (parameters["x"] - 2) ** 2 / 100) * (1 - 0.5**epoch)
            if epoch == 2 and parameters["x"] > 8:
                raise FloatingPointError("x is too large")
            if epoch == 2 and parameters["x"] < -9:
                score = math.nan
            yield ToyReport({"score": score}, epoch)
