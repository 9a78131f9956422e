"""What the driver of a search costs: by the trials on record, by the trials that run at once, by what Ray waits for.

    python tests/benchmarks/bench_controller.py record [--trials 1000,3000,10000] [--schedulers promotion,none]
    python tests/benchmarks/bench_controller.py run [--workers 1,8,32,64] [--seconds 1.5] [--reports-each 20]
    python tests/benchmarks/bench_controller.py growth [--reports 8000]
    python tests/benchmarks/bench_controller.py loop [--futures 10,100,1000,10000]

`record` resumes searches of search_spaces/full.toml, of 14 epochs a trial, with so many trials in their journal, and
asks for trials and reports epochs: no Ray. `run` is the real thing, with trainings that sleep: so many trials at once
in one Ray session, whose processors are only counted. `growth` is one long search whose trainings cost nothing. `loop`
is one turn of Tune's event loop, which waits for one future among so many. Milliseconds are of processor time unless
they are said to be of the clock; (low to high) are the extremes.
"""

import argparse
import logging
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from collections import deque
from collections.abc import Mapping
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
import ray
from free_training import FreeTraining
from ray.air.execution._internal.event_manager import RayEventManager

from fer_search.files import read_toml
from fer_search.journal import FILE_NAME, Journal, read_events
from fer_search.spaces import check_space
from fer_search.tuning.connection import Resources
from fer_search.tuning.limit import Budget
from fer_search.tuning.run import run_trials
from fer_search.tuning.space import Space
from fer_search.tuning.state import SearchState

SPACE = Path(__file__).parents[2] / "search_spaces" / "full.toml"
EPOCHS = 14
SEARCHERS = ("curves", "tpe", "random")
METRICS = ("train_loss", "learning_rate", "gradient_norm", "val_loss", "val_accuracy", "val_macro_f1",
           "val_accuracy_ema", "images_per_second", "epoch_seconds", "system/cpu_utilization_percentage",
           "system/system_memory_usage_megabytes", "system/gpu_0_utilization_percentage",
           "system/gpu_0_memory_usage_megabytes")  # fmt: skip
"""What an epoch reports on a GPU."""
NUM_TIMED = 9
ENDLESS = 10**6
WARM = 20  # reports that do not count: the first ones import and connect


def metrics_of(parameters: Mapping[str, Any], epoch: int) -> dict[str, float]:
    """Return what an epoch reports; the learning rate decides how good it is."""
    rng = np.random.default_rng([epoch, int(1e9 * parameters["max_lr"])])
    score = 0.7 - 0.1 * abs(np.log10(parameters["max_lr"]) + 2.5) - 0.2 / epoch + rng.normal(0, 0.01)
    return {name: float(score) if name.startswith("val_") else float(rng.random()) for name in METRICS}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("record", "run", "growth", "loop"), default="record")
    parser.add_argument("--trials", default="300,1000")
    parser.add_argument("--schedulers", default="promotion,none")
    parser.add_argument("--workers", default="1,8,32")
    parser.add_argument("--seconds", type=float, default=1.5)
    parser.add_argument("--reports-each", type=int, default=20)
    parser.add_argument("--searcher", choices=SEARCHERS, default="curves")
    parser.add_argument("--reports", type=int, default=2000)
    parser.add_argument("--futures", default="10,100,1000,10000")
    arguments = parser.parse_args()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    with tempfile.TemporaryDirectory() as directory:
        {"record": record, "run": run, "growth": growth, "loop": loop}[arguments.part](arguments, Path(directory))


def full_space(**changes: Any) -> Space:
    """Return the space of search_spaces/full.toml with 14 epochs and without end."""
    table = read_toml(SPACE)
    return replace(check_space({**table, "base": {"epochs": EPOCHS}}, source=SPACE), num_trials=ENDLESS, **changes)


def record(arguments: argparse.Namespace, directory: Path) -> None:
    """Print what resuming, suggesting and reporting cost with so many trials on record."""
    print("scheduler  trials epochs  B/trial B/epoch resume s KiB/trial | searcher first ms  suggestion ms"
          "             report ms            report ms (clock)")  # fmt: skip
    for scheduler in arguments.schedulers.split(","):
        for count in map(int, arguments.trials.split(",")):
            journal = directory / f"{scheduler}{count}" / FILE_NAME
            in_a_process(play, journal, scheduler, count)
            for searcher in SEARCHERS:
                print(in_a_process(decide, journal, scheduler, searcher), flush=True)


def in_a_process(function: Any, *arguments: Any) -> Any:
    """Call a function in a process of its own, whose memory nothing else has filled."""
    with ProcessPoolExecutor(1, mp_context=multiprocessing.get_context("spawn")) as pool:
        return pool.submit(function, *arguments).result()


def play(journal: Path, scheduler: str, count: int) -> None:
    """Search at random, a tenth of the trials at once, until so many have been started and none runs."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = replace(full_space(searcher="random", scheduler=scheduler), num_trials=count)
    state, busy = SearchState(space, Journal(journal)), deque[tuple[int, int]]()
    while True:
        while len(busy) < max(1, count // 10) and (trial := state.next_trial()) is not None:
            busy.append((trial.number, len(trial.epochs) + 1))
        if not busy:
            return
        number, epoch = busy.popleft()
        if state.report(number, epoch, metrics_of(state.journal.trials[number].parameters, epoch)):
            busy.append((number, epoch + 1))


def decide(journal: Path, scheduler: str, searcher: str) -> str:
    """Resume the search of a journal's copy and return a line with what that, a suggestion and a report cost."""
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    space = full_space(searcher=searcher, scheduler=scheduler)
    events = [(event["event"], end) for event, end in read_events(journal)]
    sizes = [(name, end - start) for (name, end), (_, start) in zip(events, [("", 0), *events], strict=False)]
    copied = journal.with_name(f"{searcher}.jsonl")
    shutil.copy(journal, copied)
    memory, start = resident(), time.process_time()
    state = SearchState(space, Journal(copied))
    resumed, memory = time.process_time() - start, resident() - memory
    num_trials, num_epochs = len(state.journal.trials), state.journal.num_epochs
    suggestions, reports, waits = [], [], []
    for _ in range(NUM_TIMED + 1):
        start, trial, known = time.thread_time(), None, len(state.journal.trials)
        while trial is None or trial.number < known:  # those that may go on come first
            start, trial = time.thread_time(), state.next_trial()
        suggestions.append(1e3 * (time.thread_time() - start))
        goes_on, epoch = True, 0
        while goes_on:
            epoch += 1
            metrics = metrics_of(trial.parameters, epoch)
            start, clock = time.thread_time(), time.perf_counter()
            goes_on = state.report(trial.number, epoch, metrics)
            reports.append(1e3 * (time.thread_time() - start))
            waits.append(1e3 * (time.perf_counter() - clock))
    each = {name: statistics.mean(size for kind, size in sizes if kind == name) for name in dict(sizes)}
    first, *later = suggestions
    return (
        f"{scheduler:9} {num_trials:7} {num_epochs:6} {each['trial_started']:8.0f} {each['epoch_ended']:7.0f} "
        f"{resumed:8.2f} {memory / num_trials / 1024:9.1f} | {searcher:8} {first:8.1f} {spread(later)} "
        f"{spread(reports)} {spread(waits)}"
    )


def run(arguments: argparse.Namespace, directory: Path) -> None:
    """Print what a search of sleeping trainings costs its driver, and how much of the time its workers trained."""
    workers = [int(count) for count in arguments.workers.split(",")]
    start_ray(max(workers))
    print(" workers  seconds reports filled s  trained  ms/report ms/report of all threads reports/s MiB")
    for count in workers:
        space = full_space(searcher=arguments.searcher)
        found = search(directory / str(count), space, count, arguments.seconds, WARM + count * arguments.reports_each)
        print(f"{count:8} {arguments.seconds:8.2f} {found}", flush=True)


def growth(arguments: argparse.Namespace, directory: Path) -> None:
    """Print what a report costs the driver of a search whose trainings cost nothing, in each tenth of the search."""
    start_ray(2)
    space, journal = full_space(searcher=arguments.searcher), directory / FILE_NAME
    state = SearchState(space, Journal(journal))
    sampler = Sampler(state.journal, arguments.reports // 10)
    with sampler:
        run_trials(FreeTraining(metrics_of), state, directory, resources=Resources(max_concurrent=2),
                   budget=Budget(epochs=arguments.reports))  # fmt: skip
    print("reports trials stretches  ms/report ms/report of all threads  reports/s  MiB")
    for before, after in zip(sampler.samples, sampler.samples[1:], strict=False):
        if not (count := after.reports - before.reports):
            continue  # the end, right after a sample
        print(
            f"{after.reports:7} {after.trials:6} {after.stretches:9} {1e3 * (after.main - before.main) / count:10.2f} "
            f"{1e3 * (after.all - before.all) / count:24.2f} {count / (after.time - before.time):10.1f} "
            f"{after.memory / 2**20:4.0f}"
        )


def search(directory: Path, space: Space, count: int, seconds: float, reports: int) -> str:
    """Search with so many workers until there were so many reports, and return the figures of a line."""
    state = SearchState(space, Journal(directory / FILE_NAME))
    sampler = Sampler(state.journal, max(1, reports // 10))
    with sampler:
        run_trials(FreeTraining(metrics_of, seconds), state, directory, resources=Resources(max_concurrent=count),
                   budget=Budget(epochs=reports))  # fmt: skip
    events = [event for event, _ in read_events(directory / FILE_NAME)]
    ended = [event for event in events if event["event"] == "epoch_ended"]
    heard = [next(each["time"] for each in ended if each["trial"] == number) for number in range(count)]
    full = max(heard)
    steady = [event["time"] for event in ended if event["time"] > full][: -count or None]  # until workers go idle
    trained = seconds * len(steady) / (count * (steady[-1] - full)) if steady else float("nan")
    first, last = next(each for each in sampler.samples if each.reports >= WARM), sampler.samples[-1]
    number = last.reports - first.reports
    main, every = (1e3 * seconds / number for seconds in (last.main - first.main, last.all - first.all))
    return (
        f"{len(ended):7} {full - events[0]['time']:8.1f} {trained:8.1%} {main:10.2f} "
        f"{every:24.2f} {number / (last.time - first.time):9.1f} "
        f"{last.memory / 2**20:3.0f}"
    )


def start_ray(workers: int) -> None:
    """Start an embedded Ray that has so many processors by its own count."""
    os.environ.setdefault("RAY_worker_niceness", "0")
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)
    ray.init(num_cpus=workers, include_dashboard=False, log_to_driver=False, logging_level=logging.ERROR)


@dataclass(frozen=True)
class Sample:
    """What this process has done so far: seconds of its main thread and of all its threads."""

    time: float
    main: float
    all: float
    memory: int
    reports: int
    trials: int
    stretches: int


class Sampler:
    """Watches the main thread, where Tune's loop is, from another one: a sample whenever so many more reports came."""

    def __init__(self, journal: Journal, every: int) -> None:
        self.journal, self.every = journal, every
        self.samples: list[Sample] = []
        self._clock = time.pthread_getcpuclockid(threading.main_thread().ident or 0)
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> None:
        self._thread.start()

    def __exit__(self, *_: object) -> None:
        self._over.set()
        self._thread.join()
        self._sample()

    def _watch(self) -> None:
        while not self._over.wait(0.05):
            if self.journal.num_epochs >= WARM + self.every * len(self.samples):
                self._sample()

    def _sample(self) -> None:
        trials = list(self.journal.trials.values())
        stretches = sum(1 + (each.passed > 0) for each in trials)
        self.samples.append(
            Sample(time.perf_counter(), time.clock_gettime(self._clock), time.process_time(), resident(),
                   self.journal.num_epochs, len(trials), stretches)
        )  # fmt: skip


def loop(arguments: argparse.Namespace, directory: Path) -> None:
    """Print what it costs to wait for one of so many futures and to hear its result, as Tune's loop does for each."""
    start_ray(1)

    @ray.remote
    def report() -> dict[str, float]:
        return dict.fromkeys(METRICS, 0.5)

    @ray.remote
    def wait_for(end: Any) -> None:
        """Never run: its argument never comes."""

    print("futures   ms a result, of the main thread")
    for count in map(int, arguments.futures.split(",")):
        manager, seconds = RayEventManager(), []
        never = report.options(num_cpus=2).remote()  # there is one processor
        manager.track_futures(wait_for.remote(never) for _ in range(count - 1))
        for _ in range(NUM_TIMED):
            result = report.remote()
            ray.wait([result])
            manager.track_future(result)
            start = time.thread_time()
            manager.wait(timeout=1)
            seconds.append(1e3 * (time.thread_time() - start))
        print(f"{count:7} {spread(seconds)}", flush=True)


def resident() -> int:
    """Return the bytes that this process has in memory now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE")


def spread(values: list[float]) -> str:
    """Return the median and the extremes."""
    return f"{statistics.median(values):7.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
