"""A plug-in for a simulator of asynchronous searches: the product's own Ray Searcher and TrialScheduler, in its order.

    python sim.py run --plugin .../tests/benchmarks/search_quality.py --methods curves_promotion,random_promotion
        --seeds 0-9 --W 8 --B 50 --out rows.jsonl

A method has suggest(), report(key, epoch, value) and finished(...); a parameter has name, kind, lo, hi and log.
"""

import atexit
import shutil
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import optuna
from ray.tune.schedulers import TrialScheduler

from fer_search.journal import FILE_NAME, Journal
from fer_search.tuning.limit import Budget, Limit
from fer_search.tuning.retention import Retention
from fer_search.tuning.scheduler import StateScheduler
from fer_search.tuning.searcher import StateSearcher
from fer_search.tuning.space import Space
from fer_search.tuning.space_file import read_space
from fer_search.tuning.state import SearchState

UNLIMITED = 10**6
optuna.logging.set_verbosity(optuna.logging.WARNING)


class FakeTrial:
    """What the scheduler reads of one of Ray's trials."""

    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config


class Method:
    """Calls searcher and scheduler as Ray's TuneController does."""

    def __init__(self, space: Space, num_workers: int) -> None:
        directory = Path(tempfile.mkdtemp(prefix="search_quality_"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
        state = SearchState(space, Journal(directory / FILE_NAME))
        unlimited = Limit(state.journal, Budget(), gpus=0)
        self.searcher = StateSearcher(state, places=lambda state: num_workers, limit=unlimited)
        self.scheduler = StateScheduler(state, Retention(state, directory), limit=unlimited)
        self.trials: dict[int, FakeTrial] = {}
        self.horizon = space.horizon
        self.searched = space.searched

    def suggest(self) -> dict[str, Any] | None:
        """Return a new trial, or one that goes on from where it waited."""
        config = self.searcher.suggest("")
        if config is None:
            return None
        number = config["trial"]
        self.trials[number] = FakeTrial(config)
        done = len(self.searcher.state.journal.trials[number].epochs)
        values = {name: config["parameters"][name] for name in self.searched}
        return {"key": number, "config": values, "start": done, "end": self.horizon}

    def report(self, key: int, epoch: int, value: float) -> str:
        """Pass an epoch's result on and return the verdict."""
        result = {"epoch": epoch, "metrics/score": value, "score": value}
        verdict = self.scheduler.on_trial_result(None, self.trials[key], result)
        return "stop" if verdict == TrialScheduler.STOP else "continue"

    def finished(self, key: int, epoch: int, value: float, stopped: bool) -> None:
        """Note that the worker is free."""
        self.searcher.on_trial_complete(str(key))


def method(**search: Any) -> Callable[[Sequence[Any], int, int, int], Method]:
    """Return a factory of methods with these settings of `[search]`."""

    def build(parameters: Sequence[Any], horizon: int, seed: int, num_workers: int) -> Method:
        middles = {p.name: p.from_unit(0.5) for p in parameters}
        table = {
            "search": {"metric": "score", "num_trials": UNLIMITED, "seed": seed, "first_rung": 1, **search},
            "space": {p.name: {"low": p.lo, "high": p.hi, "log": p.log} for p in parameters},
        }
        defaults = {"epochs": horizon, **middles}
        space = read_space(
            table, source=Path("simulated"), defaults=defaults, check=lambda values: [], metrics=["score"]
        )
        return Method(space, num_workers)

    return build


METHODS = {
    f"{searcher}_{scheduler}": method(searcher=searcher, scheduler=scheduler)
    for searcher in ("curves", "tpe", "random")
    for scheduler in ("promotion", "stopping")
}
