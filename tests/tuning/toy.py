"""A quadratic that satisfies the Objective contract: the workload of the search tests, and a script to kill.

python toy.py DIRECTORY NUM_TRIALS [SECONDS_PER_EPOCH] [HOST:PORT]
"""

import json
import math
import sys
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fer_search.journal import FILE_NAME, Journal
from fer_search.tuning.connection import Resources
from fer_search.tuning.run import run_trials
from fer_search.tuning.space import Space
from fer_search.tuning.space_file import read_space
from fer_search.tuning.state import SearchState

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

    def smaller(self, parameters: Mapping[str, Any]) -> None:
        """It takes no memory to speak of."""


def toy_space(num_trials: int, **search: Any) -> Space:
    table = {
        "search": {"metric": "score", "num_trials": num_trials, **search},
        "space": {"x": {"low": -10.0, "high": 10.0}},
    }
    return read_space(
        table,
        source=Path("toy.toml"),
        defaults={"epochs": HORIZON, "x": 5.0},
        check=lambda values: [],
        metrics=["score"],
        costs=["size"],
        cost_fields=["x"],
    )


def toy_size(parameters: Mapping[str, Any]) -> float:
    """Below the best x, the cheaper is the worse."""
    return float(2 ** parameters["x"])


def search_toy(directory: Path, num_trials: int, *, pause: float = 0.02, broken: bool = False, **settings: Any) -> bool:
    state = SearchState(toy_space(num_trials, first_rung=3), Journal(directory / FILE_NAME))
    return run_trials(ToyObjective(seconds=pause, broken=broken), state, directory, **settings)


if __name__ == "__main__":
    found = Path(sys.argv[1])
    found.mkdir(exist_ok=True)
    cluster = next((argument for argument in sys.argv[3:] if ":" in argument), None)
    pause = float(next((argument for argument in sys.argv[3:] if ":" not in argument), 0.02))
    one = Resources(max_concurrent=1)
    sys.exit(0 if search_toy(found, int(sys.argv[2]), pause=pause, resources=one, address=cluster) else 130)
