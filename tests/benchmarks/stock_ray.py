"""Whole searches on real faces: this project's against Ray Tune's own OptunaSearch and ASHAScheduler, at equal epochs.

    python tests/benchmarks/stock_ray.py fer2013.csv --epochs-budget 90 --repeats 5 --out rows.jsonl
    python tests/benchmarks/stock_ray.py --out rows.jsonl --table

Every method searches the same space with the same trainings and workers until all its trials together have had
`--epochs-budget` epochs. A search's winner is the best, at the last epoch, of its trials that reached it. It is trained
again with fresh seeds, the same for all methods, and judged on PublicTest, which no trial saw. A repeat has a search
seed, a training seed and a split of Training of its own, shared by all methods.

    ours        the default searcher, scheduler and rungs, as `fer-search search` runs them; the space's own settings
                are the first trial
    stock       OptunaSearch and ASHAScheduler, with their defaults but for the horizon
    stock_told  the same, told to try the space's own settings first
    random      random proposals, all trained to the end

Every finished search and every finished training is a line of the results file, so that an interrupted run goes on
where it was; lines that other code, another space, another budget or other faces made are passed over.
"""

import argparse
import hashlib
import itertools
import json
import logging
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
import torch
from ray import tune
from ray.tune.schedulers import ASHAScheduler
from ray.tune.search.optuna import OptunaSearch
from scipy import stats

import fer_search.training
import fer_search.tuning
from fer_search.chance import ChanceLevel
from fer_search.data.faces import EMOTIONS, Faces
from fer_search.data.fer2013 import load_faces
from fer_search.data.splits import Splits
from fer_search.files import read_toml
from fer_search.journal import FILE_NAME, Journal
from fer_search.races import objective_on
from fer_search.recipe import Recipe, parse_overrides
from fer_search.record import split_for
from fer_search.retraining import fresh_seeds
from fer_search.spaces import check_space
from fer_search.training.evaluation import epoch_metrics, predict_logits
from fer_search.training.trainer import Diverged, Trainer
from fer_search.tuning.connection import Resources
from fer_search.tuning.limit import Budget
from fer_search.tuning.objective import Objective
from fer_search.tuning.run import run_trials
from fer_search.tuning.select import leaderboard
from fer_search.tuning.space import Space
from fer_search.tuning.state import SearchState, Verdict

SPACE = Path(__file__).parents[2] / "search_spaces" / "calibration.toml"
SMALL = ["fit_fraction=0.1", "validation_fraction=0.05"]
UNLIMITED = 10**6  # trials: the budget ends every search
NUM_WATCHED = 100  # faces after every epoch of a training with a fresh seed, which costs time and decides nothing


@dataclass(frozen=True)
class Contest:
    """What the methods of one repeat have in common."""

    space: Space
    splits: Splits
    budget: int
    num_workers: int

    @property
    def objective(self) -> Objective:
        return objective_on(self.splits, Resources())


@dataclass(frozen=True)
class Trial:
    """What one trial of any method came to."""

    parameters: dict[str, Any]
    num_epochs: int
    value: float


def main() -> None:
    arguments = parse()
    logging.getLogger("ray.tune").setLevel(logging.ERROR)
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # Tune takes Ctrl-C for the end of a search
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    if arguments.table:
        rows = read_rows(arguments.out)
        for made in dict.fromkeys(row["made_by"] for row in rows):
            print(table([row for row in rows if row["made_by"] == made]), end="\n\n")
        return
    torch.set_num_threads(1)
    faces = load_faces(arguments.data)
    # Not what Ray counts: a process may be pinned to fewer cores than the machine has.
    ray.init(
        address="local", num_cpus=arguments.workers, include_dashboard=False, log_to_driver=False, logging_level="ERROR"
    )
    made = made_by(faces, arguments)
    for repeat in range(arguments.repeats):
        contest = contest_of(repeat, faces, arguments)
        for method in arguments.methods:
            key = {"method": method, "repeat": repeat, "made_by": made}
            search = recorded(arguments.out, {**key, "kind": "search"}, partial(run, method, contest, repeat))
            for seed in fresh_seeds(repeat, arguments.fresh_seeds):
                recipe = Recipe.build({**search["winner"], "seed": seed})
                recorded(arguments.out, {**key, "kind": "fresh", "seed": seed}, partial(judge, recipe, contest.splits))
    print(table([row for row in read_rows(arguments.out) if row["made_by"] == made]))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", nargs="?", default="synthetic")
    parser.add_argument("--space", type=Path, default=SPACE)
    parser.add_argument("--override", nargs="*", default=SMALL, metavar="key=value", help=f"default: {' '.join(SMALL)}")
    parser.add_argument("--methods", type=lambda text: text.split(","), default=["ours", "stock"])
    parser.add_argument("--epochs-budget", type=int, default=90, help="epochs of all trials of one search together")
    parser.add_argument("--repeats", type=int, default=5)
    parser.add_argument("--fresh-seeds", type=int, default=3)
    parser.add_argument("--workers", type=int, default=1, help="trials at once, a CPU core each")
    parser.add_argument("--out", type=Path, default=Path("stock_ray.jsonl"))
    parser.add_argument("--table", action="store_true", help="search nothing and print what is in the results file")
    arguments = parser.parse_args()
    if unknown := set(arguments.methods) - METHODS.keys():
        parser.error(f"--methods: must be of {', '.join(METHODS)}, got {', '.join(sorted(unknown))}")
    return arguments


def contest_of(repeat: int, faces: Faces, arguments: argparse.Namespace) -> Contest:
    asked = read_toml(arguments.space)
    own = {"seed": repeat, "split_seed": repeat}
    asked["base"] = {**asked.get("base", {}), **parse_overrides(arguments.override), **own}
    asked["search"] = {"num_trials": UNLIMITED, "seed": repeat}  # the rest by default, not as a calibration needs it
    space = check_space(asked, source=arguments.space)
    splits = split_for(faces, Recipe.build(space.complete(space.first_point)))
    return Contest(space, splits, arguments.epochs_budget, arguments.workers)


def made_by(faces: Faces, arguments: argparse.Namespace) -> str:
    """Return a digest of all that the result of a method and a repeat follows from."""
    asked = [read_toml(arguments.space), arguments.override, arguments.epochs_budget, arguments.workers]
    versions = [version(package) for package in ("torch", "ray", "optuna")]
    digest = hashlib.sha256(repr([asked, Recipe().digest(), faces.fingerprint(), versions]).encode())
    for package in (fer_search.training, fer_search.tuning):
        for file in sorted(Path(package.__file__).parent.glob("*.py")):
            digest.update(file.read_bytes())
    return digest.hexdigest()[:12]


def recorded(path: Path, key: dict[str, Any], work: Callable[[], dict[str, Any]]) -> dict[str, Any]:
    """Return the line of the results file with this key; where there is none, do the work first."""
    for row in read_rows(path):
        if key.items() <= row.items():
            return row
    started = time.perf_counter()
    row = {**key, **work(), "seconds": time.perf_counter() - started}
    with path.open("a") as file:
        file.write(json.dumps(row) + "\n")
    shown = {name: value for name, value in row.items() if name not in ("winner", "made_by", "trials")}
    print(" ".join(f"{k}={round(v, 4) if isinstance(v, float) else v}" for k, v in shown.items()), flush=True)
    return row


def read_rows(path: Path) -> list[dict[str, Any]]:
    """Return the lines of the results file; one that a kill cut off is not there."""
    if not path.exists():
        return []
    lines = path.read_text().splitlines(keepends=True)
    if lines and not lines[-1].endswith("\n"):
        path.write_text("".join(lines[:-1]))
    return [json.loads(line) for line in lines if line.endswith("\n")]


def run(method: str, contest: Contest, repeat: int) -> dict[str, Any]:
    """Search, and return what won and what it cost."""
    with tempfile.TemporaryDirectory(prefix="stock_ray_") as directory:
        trials = METHODS[method](contest, repeat, Path(directory))
    num_epochs = sum(trial.num_epochs for trial in trials)
    if num_epochs != contest.budget:
        raise RuntimeError(f"the search of {method} ended after {num_epochs} epochs, not {contest.budget}")
    complete = [trial for trial in trials if trial.num_epochs == contest.space.horizon]
    # What stopped early was behind and is not comparable; where nothing came through, whatever got furthest.
    winner = max(trials, key=lambda trial: (trial.num_epochs, trial.value))
    return {
        "winner": winner.parameters,
        "value": winner.value,
        "num_trials": len(trials),
        "num_complete": len(complete),
        "num_epochs": num_epochs,
        "trials": [[trial.num_epochs, round(trial.value, 5)] for trial in trials],
    }


def judge(recipe: Recipe, splits: Splits) -> dict[str, Any]:
    """Train the recipe and return how its last weights, not averaged, do on PublicTest, as trials are compared."""
    watched = splits.validation.take(np.arange(min(NUM_WATCHED, len(splits.validation))))
    trainer = Trainer(recipe, splits.fit, watched, device=torch.device("cpu"))
    diverged = False
    try:
        for _ in trainer:
            pass
    except Diverged:
        diverged = True  # what is left of the network is judged like any other
    logits = predict_logits(trainer.model, torch.tensor(splits.public.pixels))
    return {"accuracy": epoch_metrics(logits, torch.tensor(splits.public.labels))["accuracy"], "diverged": diverged}


def ours(contest: Contest, repeat: int, directory: Path) -> list[Trial]:
    hopeless = ChanceLevel.of(contest.splits.validation.labels, len(EMOTIONS)).verdict
    return run_state(contest, contest.space, directory, hopeless)


def random(contest: Contest, repeat: int, directory: Path) -> list[Trial]:
    space = replace(contest.space, searcher="random", scheduler="none", points=())
    return run_state(contest, space, directory, None)


def run_state(contest: Contest, space: Space, directory: Path, verdict: Verdict | None) -> list[Trial]:
    state = SearchState(space, Journal(directory / FILE_NAME), verdict=verdict)
    resources = Resources(max_concurrent=contest.num_workers)
    run_trials(contest.objective, state, directory, resources=resources, budget=Budget(epochs=contest.budget))
    ranked = leaderboard(state.journal.trials.values(), metric=space.metric)
    return [Trial(t.parameters, len(t.epochs), t.epochs[-1][space.metric]) for t in ranked if t.epochs]


def stock(contest: Contest, repeat: int, directory: Path) -> list[Trial]:
    return run_stock(contest, repeat, directory, told=False)


def stock_told(contest: Contest, repeat: int, directory: Path) -> list[Trial]:
    return run_stock(contest, repeat, directory, told=True)


def run_stock(contest: Contest, repeat: int, directory: Path, *, told: bool) -> list[Trial]:
    space = contest.space
    trainable = tune.with_parameters(StockTrainable, objective=contest.objective, space=space)
    grid = tune.Tuner(
        tune.with_resources(trainable, {"cpu": 1}),
        tune_config=tune.TuneConfig(
            search_alg=OptunaSearch(
                space.domains,
                metric=space.metric,
                mode="max",
                seed=repeat,
                points_to_evaluate=[space.first_point] if told else None,
            ),
            scheduler=ASHAScheduler(metric=space.metric, mode="max", max_t=space.horizon),
            num_samples=-1,
            max_concurrent_trials=contest.num_workers,
            reuse_actors=True,  # as ours: what is compared is decisions, not how long a worker takes to start
        ),
        run_config=tune.RunConfig(
            storage_path=str(directory),
            stop=EpochBudget(contest.budget),
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
            verbose=0,
        ),
    ).fit()
    if broken := [error for error in grid.errors if Diverged.__name__ not in str(error)]:
        raise broken[0]  # OptunaSearch would have learned from it
    results = [result for result in grid if result.metrics and space.metric in result.metrics]
    return [
        Trial(space.complete(result.config), result.metrics["training_iteration"], result.metrics[space.metric])
        for result in results
    ]


class StockTrainable(tune.Trainable):
    """An epoch of the objective per step, as a user of Tune would write it; a divergence is an error of the trial."""

    def setup(self, config: dict[str, Any], *, objective: Objective, space: Space) -> None:
        self._objective, self._space = objective, space
        self._reports: Iterator[Any] | None = None

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        self._reports = None
        return True

    def step(self) -> dict[str, Any]:
        if self._reports is None:
            self._reports = self._objective(self._space.complete(self.config), None)
        return dict(next(self._reports).metrics)


class EpochBudget(tune.Stopper):
    """Ends an experiment when its trials have reported so many epochs.

    With several workers the others are in the middle of an epoch then. It is thrown away, so that what the search has
    learned from is the budget and no more.
    """

    def __init__(self, num_epochs: int) -> None:
        self.num_left = num_epochs

    def __call__(self, trial_id: str, result: dict[str, Any]) -> bool:
        self.num_left -= 1
        return self.num_left <= 0

    def stop_all(self) -> bool:
        return self.num_left <= 0


METHODS = {"ours": ours, "stock": stock, "stock_told": stock_told, "random": random}


def table(rows: list[dict[str, Any]]) -> str:
    """Return each repeat of each method, the means, and how `ours` differs from the others."""
    fresh: dict[tuple[str, int], list[float]] = {}
    for row in rows:
        if row["kind"] == "fresh":
            fresh.setdefault((row["method"], row["repeat"]), []).append(row["accuracy"])
    means = {key: float(np.mean(found)) for key, found in fresh.items()}
    lines = [
        "| repeat | method | search value | PublicTest, fresh seeds | trials | complete | epochs | minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    searches = [row for row in rows if row["kind"] == "search"]
    for row in sorted(searches, key=lambda each: (each["repeat"], list(METHODS).index(each["method"]))):
        key = row["method"], row["repeat"]
        judged = f"{means[key]:.2%} (of {len(fresh[key])})" if key in fresh else ""
        counts = f"{row['num_trials']} | {row['num_complete']} | {row['num_epochs']} | {row['seconds'] / 60:.1f}"
        lines.append(f"| {row['repeat']} | {row['method']} | {row['value']:.2%} | {judged} | {counts} |")
    lines.append("")
    for method in METHODS:
        own = {repeat: mean for (name, repeat), mean in means.items() if name == method}
        if own:
            lines.append(f"{method}: {np.mean(list(own.values())):.2%} on PublicTest, mean of {len(own)} repeats")
        shared = [repeat for repeat in own if ("ours", repeat) in means]
        if method != "ours" and len(shared) > 1:
            lines.append(
                compared(np.array([means["ours", repeat] - own[repeat] for repeat in shared]), f"ours - {method}")
            )
    return "\n".join(lines)


def compared(differences: np.ndarray, name: str) -> str:
    """Return the mean of paired differences, its 95 % interval (Student's), and how likely coins give one as large."""
    count, mean = len(differences), differences.mean()
    reach = stats.t.ppf(0.975, count - 1) * differences.std(ddof=1) / np.sqrt(count)
    signs = np.array(list(itertools.product((-1, 1), repeat=count)))
    p = np.mean(np.abs((signs * differences).mean(axis=1)) >= abs(mean) - 1e-12)
    least = 2.0 ** (1 - count)  # where all differences have one sign
    return (
        f"{name}: {mean * 100:+.2f} points ({(mean - reach) * 100:+.2f} to {(mean + reach) * 100:+.2f}), "
        f"p = {p:.3f} by sign flips, which with {count} repeats is at least {least:.3f}"
    )


if __name__ == "__main__":
    main()
