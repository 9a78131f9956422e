"""What tracking costs a search: reports per second of an objective that costs nothing, in turn in one Ray session.

    python tests/benchmarks/bench_tracking.py [--rounds 3] [--trials 24] [--epochs 50]

Each line is a way to track, with its reports per second over those of the same search without any, and the seconds from
the search's start to its end, what is left to be sent included. `mlflow` is our own writer on SQLite, `away` the same
with a server that is not there, `study` with Optuna's storage beside it, `ray` what Ray Tune brings along instead of
all of ours: OptunaSearch and MLflowLoggerCallback, with a tenth of the epochs. The last line is `study` over `ray`.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Mapping
from contextlib import nullcontext
from pathlib import Path
from typing import Any

from free_training import FreeTraining
from optuna.distributions import distribution_to_json
from ray import tune
from ray.air.integrations.mlflow import MLflowLoggerCallback
from ray.tune.search.optuna import OptunaSearch

from fer_search.journal import FILE_NAME, Journal, read_events
from fer_search.recipe import Recipe
from fer_search.record import recorded
from fer_search.tracking_uri import local_store
from fer_search.tuning.connection import Resources, connected
from fer_search.tuning.run import run_trials
from fer_search.tuning.space import Space
from fer_search.tuning.space_file import read_space
from fer_search.tuning.state import SearchState

METRICS = ("val_accuracy", "val_accuracy_ema", "val_macro_f1", "val_loss", "train_loss", "gradient_norm",
           "learning_rate", "images_per_second", "epoch_seconds")  # fmt: skip
AWAY = "http://127.0.0.1:9"
DESCRIBED = {"source": "free", "fingerprint": "none", "public_label": "none"}


def metrics_of(parameters: Mapping[str, Any], epoch: int) -> dict[str, float]:
    """Return what an epoch reports; sam_rho decides how good it is."""
    return dict.fromkeys(METRICS, 1 - parameters["sam_rho"] / epoch)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", type=int, default=24)
    parser.add_argument("--epochs", type=int, default=50)
    arguments = parser.parse_args()
    space = free_space(arguments.trials, arguments.epochs)
    found: dict[str, list[tuple[float, float]]] = {}
    with connected(None), tempfile.TemporaryDirectory() as directory:
        search(Path(directory) / "warm", free_space(4, 9), "none")
        for number in range(arguments.rounds):
            for way in ("none", "mlflow", "study", "away"):
                found.setdefault(way, []).append(search(Path(directory) / f"{way}{number}", space, way))
            found.setdefault("ray", []).append(ray_search(Path(directory) / f"ray{number}", arguments))
    print(f"{'tracking':10} {'reports/s':>10} {'of none':>18} {'seconds':>8} {'of none':>18}")
    for way, each in found.items():
        speeds, seconds = zip(*each, strict=True)
        print(f"{way:10} {statistics.median(speeds):10.0f} {against(found, way, 0)}", end=" ")
        print(f"{statistics.median(seconds):8.1f} {against(found, way, 1)}")
    print(f"{'ours / ray':10} {'':10} {against(found, 'study', 0, than='ray')}")


def against(found: dict[str, list[tuple[float, float]]], way: str, column: int, *, than: str = "none") -> str:
    """Return the median and the extremes of the ratios to another way's search in the same round."""
    ratios = [mine[column] / other[column] for mine, other in zip(found[way], found[than], strict=True)]
    return f"{statistics.median(ratios):.2f} ({min(ratios):.2f} to {max(ratios):.2f})"


def free_space(num_trials: int, epochs: int) -> Space:
    """Return a space of recipes, of which one parameter is drawn."""
    table = {
        "search": {"num_trials": num_trials, "searcher": "random", "scheduler": "none"},
        "space": {"sam_rho": {"low": 0.0, "high": 0.2}},
    }
    defaults = Recipe().replace({"epochs": epochs}).model_dump()
    return read_space(table, source=Path("free"), defaults=defaults, check=lambda values: [], metrics=METRICS)


def search(directory: Path, space: Space, way: str) -> tuple[float, float]:
    """Run a search and return its reports per second, from the first one to the last, and the seconds in all."""
    start = time.perf_counter()
    uri = AWAY if way == "away" else local_store(directory.parent)
    settings = {
        "kind": "search", "search_id": directory.name, "tracking_uri": uri, "data": DESCRIBED,
        "versions": {"fer-search": "0"},
    }  # fmt: skip
    domains = {name: distribution_to_json(domain) for name, domain in space.domains.items()}
    tracking = nullcontext() if way == "none" else recorded(
        directory, settings, title=directory.name, tags={}, follow=None, parent_params={},
        study={"metric": space.metric, "domains": domains} if way == "study" else None,
    )  # fmt: skip
    with tracking:
        state = SearchState(space, Journal(directory / FILE_NAME))
        assert run_trials(FreeTraining(metrics_of), state, directory, resources=Resources(max_concurrent=2))
    seconds = time.perf_counter() - start
    times = [event["time"] for event, _ in read_events(directory / FILE_NAME) if event["event"] == "epoch_ended"]
    return (len(times) - 1) / (times[-1] - times[0]), seconds


def ray_search(directory: Path, arguments: argparse.Namespace) -> tuple[float, float]:
    """Run a tenth of as many free trials with Ray's own callback, on Ray's own function API."""
    start = time.perf_counter()
    epochs, received = max(arguments.epochs // 10, 1), []

    class Clock(tune.Callback):  # type: ignore[misc]  # Ray has no types
        def on_trial_result(self, *event: Any, **more: Any) -> None:
            received.append(time.perf_counter())

    def train(config: dict[str, Any]) -> None:
        for epoch in range(1, epochs + 1):
            tune.report(dict.fromkeys(METRICS, 1 - config["sam_rho"] / epoch))

    callback = MLflowLoggerCallback(tracking_uri=local_store(directory.parent), experiment_name=directory.name)
    tune.Tuner(
        train,
        param_space={"sam_rho": tune.uniform(0.01, 0.2)},
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(seed=0),
            metric="val_accuracy",
            mode="max",
            num_samples=arguments.trials,
            max_concurrent_trials=2,
            reuse_actors=True,
        ),
        run_config=tune.RunConfig(storage_path=str(directory), callbacks=[callback, Clock()], verbose=0),
    ).fit()
    return (len(received) - 1) / (received[-1] - received[0]), time.perf_counter() - start


if __name__ == "__main__":
    main()
