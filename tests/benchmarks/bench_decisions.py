"""What a decision costs as a search grows: milliseconds of CPU per suggestion and per report, and memory.

    python tests/benchmarks/bench_decisions.py [--trials 10000] [--workers 1000] [--searcher curves] [--cost]

Plays a search of nine dimensions and 27 epochs through the product's state with so many trials at work at once; nothing
trains. A line holds the means over what happened since the line before it. With `--cost` the search is for a front of
metric against cost.
"""

import argparse
import heapq
import resource
import tempfile
import time
from pathlib import Path

import numpy as np
import optuna

from fer_search.journal import FILE_NAME, Journal
from fer_search.tuning.space_file import read_space
from fer_search.tuning.state import SearchState

HORIZON = 27
NUM_DIMENSIONS = 9
MILESTONES = (100, 300, 1_000, 3_000, 10_000, 30_000)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=10_000)
    parser.add_argument("--workers", type=int, default=1_000)
    parser.add_argument("--searcher", default="curves")
    parser.add_argument("--cost", action="store_true")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    names = [f"x{i}" for i in range(NUM_DIMENSIONS)]
    table = {
        "search": {
            "metric": "score",
            "num_trials": arguments.trials,
            "searcher": arguments.searcher,
            "first_rung": 1,
        },
        "space": {name: {"low": 0.0, "high": 1.0} for name in names},
    }
    if arguments.cost:
        table["search"]["cost"] = "size"
    defaults = {"epochs": HORIZON, **dict.fromkeys(names, 0.5)}
    space = read_space(
        table,
        source=Path("bench"),
        defaults=defaults,
        check=lambda values: [],
        metrics=["score"],
        costs=["size"],
        cost_fields=names[:1],
    )
    measure = (lambda parameters: 2.0 ** parameters["x0"]) if arguments.cost else None
    with tempfile.TemporaryDirectory() as directory:
        play(SearchState(space, Journal(Path(directory) / FILE_NAME), measure=measure), names, arguments.workers)


def play(state: SearchState, names: list[str], num_workers: int) -> None:
    rng = np.random.default_rng(0)
    busy: list[tuple[float, int, int]] = []  # when the next report comes, trial, epoch
    milestones = list(MILESTONES)
    started = time.process_time()
    suggesting = reporting = 0.0
    suggestions = reports = 0
    print(f"{'trials':>8} {'ms/suggestion':>14} {'ms/report':>10} {'reports/s':>10} {'MiB':>6} {'s':>6}")
    now = 0.0
    while not state.finished:
        while state.num_running < num_workers:
            before = time.process_time()
            num_trials = len(state.journal.trials)
            trial = state.next_trial()
            if len(state.journal.trials) > num_trials:
                suggesting += time.process_time() - before
                suggestions += 1
            if trial is None:
                break
            heapq.heappush(busy, (now + rng.lognormal(0, 0.2), trial.number, len(trial.epochs) + 1))
        now, number, epoch = heapq.heappop(busy)
        point = state.journal.trials[number].parameters
        score = 1 - sum((point[name] - 0.7) ** 2 for name in names) / NUM_DIMENSIONS - 0.5 / epoch
        before = time.process_time()
        goes_on = state.report(number, epoch, {"score": score + rng.normal(0, 0.005)})
        reporting += time.process_time() - before
        reports += 1
        if goes_on:
            heapq.heappush(busy, (now + rng.lognormal(0, 0.2), number, epoch + 1))
        if (milestones and len(state.journal.trials) >= milestones[0]) or state.finished:
            memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
            print(
                f"{len(state.journal.trials):>8} {1e3 * suggesting / max(1, suggestions):>14.1f} "
                f"{1e3 * reporting / reports:>10.2f} {reports / reporting:>10.0f} {memory:>6.0f} "
                f"{time.process_time() - started:>6.0f}",
                flush=True,
            )
            suggesting = reporting = 0.0
            suggestions = reports = 0
            milestones = [each for each in milestones if each > len(state.journal.trials)]


if __name__ == "__main__":
    main()
