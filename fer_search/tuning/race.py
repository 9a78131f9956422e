"""Which of the best trials is really the best: fresh seeds for each, and more of them only for those still in it.

A search's own best value is the largest of many noisy ones, so it is too good; what a race says comes from seeds that
had no part in the choice.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_search.errors import InvalidInput, problem
from fer_search.journal import Journal, TrialRecord
from fer_search.tuning.pareto import pareto_order
from fer_search.tuning.select import leaderboard, pareto_front
from fer_search.tuning.whole_trainings import WholeTrainings

LEVEL = 0.05


@dataclass(frozen=True)
class Standing:
    """How a trial of the search did in its race: by how much its mean is behind the leader's, and with what p-value.

    `scores` are those of the seeds, in order. An entrant of which a seed failed is out, with no standing among the
    others.
    """

    trial: int
    scores: tuple[float, ...]
    behind: float
    p_value: float
    failed: bool

    @property
    def mean(self) -> float:
        """The mean over the seeds."""
        return float(np.mean(self.scores)) if self.scores else float("nan")

    @property
    def interval(self) -> tuple[float, float] | None:
        """The mean's interval; computed only where it is shown: a race asks for standings before every training."""
        return mean_interval(self.scores)

    @property
    def in_race(self) -> bool:
        """Whether it may still be the best."""
        return not self.failed and self.p_value >= LEVEL


def mean_interval(scores: Sequence[float]) -> tuple[float, float] | None:
    """Return the 95 % interval of the mean over seeds by the BCa bootstrap (Efron 1987).

    It is rough, and rather too narrow, for three seeds; None below three, or where all are equal.
    """
    from scipy import stats  # a second to load, which a search without a race need not take

    if len(scores) < 3 or np.ptp(scores) == 0:
        return None
    found = stats.bootstrap((np.asarray(scores),), np.mean, method="BCa", rng=np.random.default_rng(0))
    return float(found.confidence_interval.low), float(found.confidence_interval.high)


def entrants(trials: Sequence[TrialRecord], *, metric: str, top: int, front: bool = False) -> dict[int, dict[str, Any]]:
    """Return the parameters of the `top` trials at the horizon and of trial 0, what the search came with, by number.

    With `front` they are those of the Pareto front of the metric against the recorded cost: the best, and where there
    are more than `top` then always the one that is farthest from those before it. Raises InvalidInput if none reached
    the horizon.
    """
    complete = [trial for trial in leaderboard(trials, metric=metric) if trial.state == "COMPLETE"]
    if not complete:
        states = sorted({trial.state for trial in trials})
        raise InvalidInput(problem("search", "trials", "must hold one that reached the last epoch", states))
    if front:
        values = np.array([trial.epochs[-1][metric] for trial in complete])
        log_costs = np.log([trial.cost for trial in complete if trial.cost is not None])
        num_on_front = sum(pareto_front(values.tolist(), log_costs.tolist()))
        complete = [complete[index] for index in pareto_order(values, log_costs)[:num_on_front]]
    first = [trial for trial in trials if trial.number == 0]
    return {trial.number: trial.parameters for trial in [*complete[:top], *first]}


class RaceState(WholeTrainings):
    """The trainings of a race, as TrialState says: rounds of one seed for every entrant that is still in it.

    `parameters` are the entrants' by number; each of its trainings runs one with a seed of its own, which is the same
    for all entrants of a round. After `min_seeds` rounds, who is worse than the leader (p < 0.05) is out; an entrant of
    which a training fails is out too. After `max_seeds`, or when one is left, the race is over. All of it follows from
    the journal.
    """

    def __init__(
        self,
        parameters: Mapping[int, Mapping[str, Any]],
        journal: Journal,
        *,
        metric: str,
        horizon: int,
        seed: int,
        min_seeds: int,
        max_seeds: int,
    ) -> None:
        super().__init__(journal, metric=metric, horizon=horizon)
        self.parameters, self.min_seeds, self.max_seeds = parameters, min_seeds, max_seeds
        generated = np.random.SeedSequence([seed, *b"race"]).generate_state(max_seeds)
        self.seeds = [int(state >> 1) for state in generated]

    @property
    def num_waiting(self) -> int:
        """How many trainings of this round have no worker yet."""
        return len(self._waiting())

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run."""
        return not self._running and not self._due()

    def next_trial(self) -> TrialRecord | None:
        """Return the next training of this round, or None if a worker has to wait."""
        waiting = self._waiting()
        if not waiting:
            return None
        number = self._number(waiting[0])
        if number is None:
            entrant, seed = waiting[0]
            number = len(self.journal.trials)
            point = {"trial": entrant, "seed": seed}
            self.journal.trial_started(number, {**self.parameters[entrant], "seed": seed}, point=point)
        return self._begin(number)

    def standings(self) -> list[Standing]:
        """Return the entrants in their order: those in the race by their means, then who failed."""
        return standings(self._scores(), failed=self._failed())

    def _waiting(self) -> list[tuple[int, int]]:
        return [key for key in self._due() if self._number(key) not in self._running]

    def _due(self) -> list[tuple[int, int]]:
        """Return what the current round still has to run, as pairs of entrant and seed."""
        for played in range(self.max_seeds):
            alive = self._alive(played)
            if played >= self.min_seeds and len(alive) < 2:
                return []
            missing = [(entrant, self.seeds[played]) for entrant in alive]
            missing = [key for key in missing if (n := self._number(key)) is None or not self.journal.trials[n].ended]
            if missing:
                return missing
        return []

    def _alive(self, played: int) -> list[int]:
        """Return who is in the race after the first `played` rounds."""
        failed = self._failed(played)
        if played < max(self.min_seeds, 1):
            return [entrant for entrant in self.parameters if entrant not in failed]
        before = set(self._alive(played - 1))
        scores = {entrant: values[:played] for entrant, values in self._scores().items() if entrant in before}
        return [standing.trial for standing in standings(scores, failed=failed) if standing.in_race]

    def _number(self, key: tuple[int, int]) -> int | None:
        found = (r.number for r in self.journal.trials.values() if (r.point["trial"], r.point["seed"]) == key)
        return next(found, None)

    def _records(self, played: int | None = None) -> list[TrialRecord]:
        seeds = self.seeds[:played]
        return [
            r for r in self.journal.trials.values() if r.point["seed"] in seeds and r.point["trial"] in self.parameters
        ]

    def _failed(self, played: int | None = None) -> set[int]:
        return {record.point["trial"] for record in self._records(played) if record.state == "FAIL"}

    def _scores(self) -> dict[int, list[float]]:
        """Return the results of each entrant, seed by seed, up to its first that is not there."""
        found: dict[int, list[float]] = {}
        for entrant in self.parameters:
            values = found.setdefault(entrant, [])
            for seed in self.seeds:
                number = self._number((entrant, seed))
                if number is None or self.journal.trials[number].state != "COMPLETE":
                    break
                values.append(self.journal.trials[number].epochs[-1][self.metric])
        return found


def standings(scores: Mapping[int, Sequence[float]], *, failed: set[int]) -> list[Standing]:
    """Rank entrants by their means over the seeds that all who played as many have in common.

    A round is a block: entrants share its seed, and the noise left after entrant and seed is pooled over all entrants
    that played the most rounds (a randomized block design; Fisher's least significant difference). `p_value` is
    one-sided, for "no worse than the leader"; nobody is significantly worse where the noise cannot be told.
    """
    from scipy.stats import t as student

    sound = {entrant: np.asarray(values) for entrant, values in scores.items() if entrant not in failed and len(values)}
    if not sound:
        return [
            Standing(entrant, tuple(map(float, scores[entrant])), 0.0, 0.0, failed=True) for entrant in sorted(failed)
        ]
    rounds = max(len(values) for values in sound.values())
    full = {entrant: values for entrant, values in sound.items() if len(values) == rounds}
    leader = max(full, key=lambda entrant: (full[entrant].mean(), -entrant))
    found = []
    for entrant, values in sound.items():
        behind = float(np.mean(full[leader][: len(values)] - values))
        deviation, degrees = _noise({e: v[: len(values)] for e, v in sound.items() if len(v) >= len(values)})
        p_value = 1.0
        if entrant != leader and degrees > 0 and behind > 0:
            error = deviation * np.sqrt(2 / len(values))
            p_value = float(student.sf(behind / error, degrees)) if error > 0 else 0.0
        found.append(Standing(entrant, tuple(map(float, values)), behind, p_value, failed=False))
    found.sort(key=lambda standing: (-len(standing.scores), standing.behind, standing.trial))
    return found + [
        Standing(entrant, tuple(map(float, scores.get(entrant, ()))), 0.0, 0.0, failed=True)
        for entrant in sorted(failed)
    ]


def _noise(block: Mapping[int, NDArray[np.float64]]) -> tuple[float, int]:
    """Return the standard deviation of what entrant and seed do not explain, and its degrees of freedom."""
    table = np.stack(list(block.values()))
    degrees = (table.shape[0] - 1) * (table.shape[1] - 1)
    residuals = table - table.mean(0) - table.mean(1, keepdims=True) + table.mean()
    return (float(np.sqrt((residuals**2).sum() / degrees)), degrees) if degrees else (0.0, 0)
