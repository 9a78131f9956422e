"""How much of a search's time is training: seconds inside of training steps over those of the whole command.

    python tests/benchmarks/bench_search.py [--trials 5] [--epochs 30]

A real `fer-search search` on the synthetic faces, one trial after the other on all cores, none stopped early. Printed
are the shares of the command's whole time and of the time from the first trial's start to the last one's end, and where
the rest went: validation is within an epoch; checkpoints and the search's own work are between the epochs.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from fer_search.data.fer2013 import load_faces
from fer_search.journal import EPOCH_SECONDS, FILE_NAME, read_events, read_journal
from fer_search.recipe import Recipe
from fer_search.record import split_for

SPACE = Path(__file__).parents[2] / "search_spaces" / "smoke.toml"
NAME = "timed"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=30)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        runs = Path(directory)
        space = runs / "space.toml"
        space.write_text(SPACE.read_text().replace("[search]\n", '[search]\nscheduler = "none"\n', 1))
        command = [
            sys.executable, "-m", "fer_search", "search", space, f"epochs={arguments.epochs}", "--name", NAME,
            "--runs", runs, "--trials", arguments.trials, "--cpus-per-trial", os.cpu_count(), "--max-concurrent", 1,
        ]  # fmt: skip
        start = time.time()
        subprocess.run(list(map(str, command)), check=True, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        report(runs / NAME / FILE_NAME, start, time.time())


def report(journal: Path, start: float, end: float) -> None:
    """Print the shares of a search that took from `start` to `end`."""
    trials = read_journal(journal)
    splits = split_for(load_faces("synthetic"), Recipe.build(trials[0].parameters))
    epochs = [metrics for trial in trials for metrics in trial.epochs]
    steps = sum(len(splits.fit) / metrics["images_per_second"] for metrics in epochs)
    within = sum(metrics[EPOCH_SECONDS] for metrics in epochs)
    times = [event["time"] for event, _ in read_events(journal)]
    trialled = times[-1] - times[0]
    print(
        f"{len(trials)} trials of {trialled / len(trials):.0f} s, {len(epochs)} epochs of {within / len(epochs):.2f} s"
    )
    print(
        f"in training steps: {steps / (end - start):.1%} of the command's {end - start:.0f} s, "
        f"{steps / trialled:.1%} of the {trialled:.0f} s from the first trial's start to the last one's end"
    )
    starts = sorted(start_seconds(journal))
    print(
        f"from a trial's suggestion to its first step, warm worker: median {starts[len(starts) // 2]:.2f} s, {starts}"
    )
    print(f"validation: {(within - steps) / trialled:.1%}; between epochs: {(trialled - within) / trialled:.1%}")


def start_seconds(journal: Path) -> list[float]:
    """Return what each trial but the first, whose worker has to start, took from its suggestion to its first step.

    The end of its first epoch is on record, and how long that took; writing its checkpoint is counted too.
    """
    events = [event for event, _ in read_events(journal)]
    begun = {event["trial"]: event["time"] for event in events if event["event"] == "trial_started"}
    return [
        round(event["time"] - begun[event["trial"]] - event["metrics"][EPOCH_SECONDS], 2)
        for event in events
        if event["event"] == "epoch_ended" and event["epoch"] == 1 and event["trial"] > 0
    ]


if __name__ == "__main__":
    main()
