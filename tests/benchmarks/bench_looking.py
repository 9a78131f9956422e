"""What looking at a large search takes: the commands that print or draw it, and its live screen.

    python tests/benchmarks/bench_looking.py [--trials 1000] [--rounds 3]

A search of `search_spaces/full.toml` is played through the product's state with random proposals and made-up curves,
eight trials at a time. Commands are timed as processes, beside `fer_search --help`, which loads next to nothing, and
with the CPU time of all their threads; the report's page by Chromium, where there is one, from the navigation's start
until it is loaded and laid out; of the live screen it is the CPU time of drawing it once, as it is drawn once a second.
"""

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
import time
import tomllib
from collections.abc import Sequence
from pathlib import Path
from uuid import uuid4

import numpy as np
from rich.console import Console

from fer_search.data.fer2013 import load_faces
from fer_search.journal import FILE_NAME, Journal
from fer_search.live import SearchScreen
from fer_search.recipe import Recipe
from fer_search.record import describe_data, package_versions, split_for
from fer_search.runs import SETTINGS, write_json
from fer_search.space_tables import space_of
from fer_search.tracking_uri import local_store
from fer_search.tuning.connection import Resources
from fer_search.tuning.space import Space
from fer_search.tuning.state import SearchState

SPACE = Path(__file__).parents[2] / "search_spaces" / "full.toml"
NAME = "large"
NUM_WORKERS = 8
NUM_SCREENS = 20
CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
CLOCK = """
<script>
addEventListener("load", () => {
  document.body.getBoundingClientRect();  // waits for the layout
  document.title = performance.now();
});
</script>
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--trials", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=3)
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as directory:
        runs = Path(directory)
        space = begin(runs / NAME, arguments.trials)
        play(SearchState(space, Journal(runs / NAME / FILE_NAME)))
        page = runs / "page"
        commands = {
            "--help": ["--help"],
            "compare": ["compare", NAME, "--runs", runs],
            "report": ["report", NAME, "--runs", runs, "--output", page],
        }
        seconds = {name: [timed(command) for _ in range(arguments.rounds)] for name, command in commands.items()}
        for name, each in seconds.items():
            wall, cpu = zip(*each, strict=True)
            print(f"fer_search {name}: {spread(wall)}, of CPU time {spread(cpu)}")
        print(f"the page has {(page / 'report.html').stat().st_size / 1e6:.1f} MB")
        if CHROMIUM is None:
            print("there is no Chromium to open it")
        else:
            opened = [opening_seconds(page / "report.html") for _ in range(arguments.rounds)]
            print(f"Chromium has it loaded and laid out after {spread(opened, digits=2)}")
        print(f"drawing the live screen once: {1e3 * screen_seconds(runs / NAME):.1f} ms of CPU time")


def begin(directory: Path, num_trials: int) -> Space:
    """Write the settings of a search as the product does, and return its space."""
    table = tomllib.loads(SPACE.read_text())
    table["search"] = {**table.get("search", {}), "searcher": "random", "num_trials": num_trials}
    space = space_of(table, source=SPACE)
    faces = load_faces("synthetic")
    settings = {
        "kind": "search",
        "search_id": uuid4().hex,
        "space_file": str(SPACE),
        "space": table,
        "parameters": space.parameters,
        "resources": vars(Resources()),
        "address": None,
        "tracking_uri": local_store(directory.parent),
        "data": describe_data("synthetic", faces, split_for(faces, Recipe.build(space.parameters))),
        "versions": package_versions(),
        "num_trials": num_trials,
    }
    directory.mkdir()
    write_json(directory / SETTINGS, settings)
    return space


def play(state: SearchState) -> None:
    """Run the search with curves that hang on two of its parameters, and noise."""
    rng = np.random.default_rng(0)
    busy: list[tuple[int, int]] = []
    while not state.finished:
        while len(busy) < NUM_WORKERS and (trial := state.next_trial()) is not None:
            busy.append((trial.number, len(trial.epochs) + 1))
        number, epoch = busy.pop(0)
        parameters = state.journal.trials[number].parameters
        worth = 0.6 - 0.02 * np.log10(parameters["max_lr"] / 3e-3) ** 2 - 0.1 * (parameters["sam_rho"] - 0.05) ** 2
        value = float(worth - 0.3 / epoch + rng.normal(0, 0.01))
        metrics = {"train_loss": 1.5, "epoch_seconds": 30.0, "images_per_second": 900.0, "val_accuracy": value}
        if state.report(number, epoch, {**metrics, "val_macro_f1": value - 0.05, "val_accuracy_ema": value + 0.01}):
            busy.append((number, epoch + 1))


def timed(command: list[str | Path]) -> tuple[float, float]:
    """Return the seconds that a command takes, and those of CPU time."""
    start, before = time.perf_counter(), os.times()
    subprocess.run([sys.executable, "-m", "fer_search", *map(str, command)], check=True, capture_output=True)
    seconds, after = time.perf_counter() - start, os.times()
    return seconds, after.children_user + after.children_system - before.children_user - before.children_system


def opening_seconds(page: Path) -> float:
    """Return the seconds until a fresh browser has loaded the page and laid it out; starting the browser is no part."""
    with tempfile.TemporaryDirectory() as directory:
        copy = Path(directory) / "page.html"
        copy.write_text(page.read_text() + CLOCK)
        command = [
            CHROMIUM, "--headless=new", "--no-sandbox", "--disable-gpu", f"--user-data-dir={directory}/profile",
            "--window-size=1200,900", "--dump-dom", copy.as_uri(),
        ]  # fmt: skip
        dom = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    title = re.search(r"<title>([\d.]+)</title>", dom)
    assert title is not None, "the page did not say when it was loaded"
    return float(title[1]) / 1000


def spread(seconds: Sequence[float], *, digits: int = 1) -> str:
    """Return the median and the range."""
    return f"{np.median(seconds):.{digits}f} s ({min(seconds):.{digits}f} to {max(seconds):.{digits}f})"


def screen_seconds(directory: Path) -> float:
    """Return the CPU seconds of drawing the screen of a search that has been read."""
    console = Console(width=120, force_terminal=True, file=(directory / "screen.txt").open("w"))
    screen = SearchScreen(directory)
    console.print(screen)
    start = time.process_time()
    for _ in range(NUM_SCREENS):
        console.print(screen)
    return (time.process_time() - start) / NUM_SCREENS


if __name__ == "__main__":
    main()
