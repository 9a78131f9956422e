"""Searches of the toy objective, and a script to kill.

python toy.py DIRECTORY NUM_TRIALS [SECONDS_PER_EPOCH] [HOST:PORT]
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from toy_objective import HORIZON, ToyObjective

from fer_search.journal import FILE_NAME, Journal
from fer_search.tuning.connection import Resources
from fer_search.tuning.run import run_trials
from fer_search.tuning.space import Space
from fer_search.tuning.space_file import read_space
from fer_search.tuning.state import SearchState


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
