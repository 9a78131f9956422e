"""Replay searches on emulated learning curves, in virtual time: what a way to search is worth before it costs anything.

The search is the real one, SearchState with its journal, asked and told in the order in which Ray's workers would. Only
the trainings are emulated, and an epoch of any of them lasts one unit of time.
"""

import heapq
import itertools
import multiprocessing
import tempfile
from collections.abc import Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import optuna
from scipy import stats
from threadpoolctl import threadpool_limits

from fer_search.emulator import Emulator
from fer_search.errors import InvalidInput, problem
from fer_search.journal import FILE_NAME, Journal
from fer_search.tuning.gaussian_process import Array
from fer_search.tuning.select import leaderboard
from fer_search.tuning.space import Space
from fer_search.tuning.space_file import SEARCH_CHOICES
from fer_search.tuning.state import SearchState

UNLIMITED = 10**6
"""Trials are started until the budget is spent."""
BASELINES = (
    "random/none", "random/stopping", "random/promotion", "tpe/stopping", "tpe/promotion", "curves/stopping",
    "curves/promotion",
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """How to search; what is None is as the space has it."""

    searcher: str | None = None
    scheduler: str | None = None
    eta: int | None = None
    first_rung: int | None = None

    @classmethod
    def baseline(cls, name: str) -> "Setting":
        """Return the setting called `searcher/scheduler`; raises InvalidInput if there is none."""
        if name not in BASELINES:
            raise InvalidInput(problem("command line", "baseline", f"must be one of {', '.join(BASELINES)}", name))
        searcher, scheduler = name.split("/")
        return cls(searcher, scheduler)

    @property
    def changes(self) -> dict[str, Any]:
        """What is not as the space has it."""
        return {key: value for key, value in vars(self).items() if value is not None}

    def apply(self, space: Space) -> Space:
        """Return the space with this setting."""
        return replace(space, **self.changes)

    def described(self, space: Space) -> str:
        """Return all of how a space is searched under this setting."""
        applied = self.apply(space)
        rungs = f", eta {applied.eta}, first rung {applied.first_rung}" if applied.scheduler != "none" else ""
        return f"{applied.searcher}/{applied.scheduler}{rungs}"

    def problems(self, space: Space) -> list[str]:
        """Return what is wrong with this setting in a space."""
        source = "command line"
        applied = self.apply(space)
        found = [
            problem(source, key, f"must be one of {', '.join(allowed)}", value)
            for key, allowed in SEARCH_CHOICES.items()
            if (value := getattr(self, key)) is not None and value not in allowed
        ]
        for key, least in (("eta", 2), ("first_rung", 1)):
            value = getattr(self, key)
            if value is None:
                continue
            if applied.scheduler == "none":
                rule = "must not be given, since it has no effect while scheduler is none"
                found.append(problem(source, key, rule, value))
            elif value < least:
                found.append(problem(source, key, f"must be a whole number from {least}", value))
        if self.first_rung is not None and self.first_rung >= space.horizon:
            rule = f"must be below the horizon, {space.horizon} epochs"
            found.append(problem(source, "first_rung", rule, self.first_rung))
        return found


@dataclass(frozen=True)
class Replay:
    """One search: the regret once each budget was spent, how many trials it started, and how many came to the end."""

    regrets: tuple[float, ...]
    num_trials: int
    num_complete: int


@dataclass(frozen=True)
class Outcome:
    """The searches of one setting: `regrets` (seeds, budgets) is the mean over the emulators."""

    regrets: Array
    num_trials: float
    num_complete: float

    @property
    def mean(self) -> Array:
        """The mean regret (budgets,)."""
        return np.asarray(self.regrets.mean(0))

    @property
    def intervals(self) -> list[tuple[float, float]]:
        """The mean's 95 % interval for each budget, by the percentile bootstrap over seeds."""
        rng = np.random.default_rng(0)
        picked = rng.integers(len(self.regrets), size=(10_000, len(self.regrets)))
        low, high = np.percentile(self.regrets[picked].mean(1), (2.5, 97.5), axis=0)
        return list(zip(low.tolist(), high.tolist(), strict=True))

    def p_values(self, other: "Outcome") -> list[float]:
        """Return for each budget the p of Wilcoxon's two-sided signed-rank test, paired by seed, of equal regret."""
        differences = self.regrets - other.regrets
        return [float(stats.wilcoxon(column).pvalue) if column.any() else 1.0 for column in differences.T]


def simulate(
    emulators: Sequence[Emulator],
    settings: Mapping[str, Setting],
    *,
    num_seeds: int,
    num_workers: int,
    budgets: Sequence[int],
    num_jobs: int,
) -> dict[str, Outcome]:
    """Search every emulator under every setting, once for each seed, and return the outcomes by the settings' names.

    `budgets` ascend and count full trainings. Which of `num_jobs` processes runs what changes no figure.
    """
    tasks = list(itertools.product(settings, range(len(emulators)), range(num_seeds)))
    arguments = [(emulators[n], settings[name], seed, num_workers, tuple(budgets)) for name, n, seed in tasks]
    if num_jobs == 1:
        replays = [_replay(each) for each in arguments]
    else:
        # Not forked: the parent may hold threads and their locks.
        context = multiprocessing.get_context("spawn")
        with ProcessPoolExecutor(min(num_jobs, len(tasks)), mp_context=context) as pool:
            replays = list(pool.map(_replay, arguments))
    by_task = dict(zip(tasks, replays, strict=True))
    outcomes = {}
    for name in settings:
        rows = [[by_task[name, n, seed] for n in range(len(emulators))] for seed in range(num_seeds)]
        every = [each for row in rows for each in row]
        outcomes[name] = Outcome(
            np.array([np.mean([each.regrets for each in row], axis=0) for row in rows]),
            float(np.mean([each.num_trials for each in every])),
            float(np.mean([each.num_complete for each in every])),
        )
    return outcomes


def replay(
    emulator: Emulator, setting: Setting, *, seed: int, num_workers: int, budgets: Sequence[int], directory: Path
) -> Replay:
    """Search once, with the journal in `directory`, until the largest of the ascending `budgets` is spent.

    Judged is the trial that the leaderboard shows first, by its noise-free final value, whatever it had reported.
    """
    space = replace(setting.apply(emulator.space), num_trials=UNLIMITED, seed=seed)
    state = SearchState(space, Journal(directory / FILE_NAME))
    trials = state.journal.trials
    curves: dict[int, tuple[Array, float]] = {}
    ends: list[tuple[int, int, int]] = []  # when the next epoch of a trial ends; of equal times, the first to start
    order = itertools.count()
    limits = [budget * space.horizon for budget in budgets]
    regrets: list[float] = []
    num_epochs = now = 0
    while len(regrets) < len(limits):
        while len(ends) < num_workers and (trial := state.next_trial()) is not None:
            if trial.number not in curves:
                curves[trial.number] = emulator.noisy_curve(trial.point, np.random.default_rng([seed, trial.number]))
            heapq.heappush(ends, (now + 1, next(order), trial.number))
        now, _, number = heapq.heappop(ends)
        done = len(trials[number].epochs)
        num_epochs += 1
        if state.report(number, done + 1, {space.metric: float(curves[number][0][done])}):
            heapq.heappush(ends, (now + 1, next(order), number))
        if num_epochs == limits[len(regrets)]:
            incumbent = leaderboard(trials.values(), metric=space.metric)[0]
            regrets.append(emulator.regret(curves[incumbent.number][1]))
    return Replay(tuple(regrets), len(trials), sum(trial.state == "COMPLETE" for trial in trials.values()))


def _replay(arguments: tuple[Emulator, Setting, int, int, tuple[int, ...]]) -> Replay:
    emulator, setting, seed, num_workers, budgets = arguments
    before = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)  # a line for each of thousands of trials
    try:
        with tempfile.TemporaryDirectory() as directory, threadpool_limits(limits=1):
            return replay(
                emulator, setting, seed=seed, num_workers=num_workers, budgets=budgets, directory=Path(directory)
            )
    finally:
        optuna.logging.set_verbosity(before)
