"""Which trial wins, and why the others do not."""

from collections.abc import Iterable, Sequence

from fer_search.errors import InvalidInput, problem
from fer_search.journal import TrialRecord


def leaderboard(trials: Iterable[TrialRecord], *, metric: str) -> list[TrialRecord]:
    """Order trials: those that reached the horizon by their last value, then the others by how far and how well they
    got.

    A stopped trial never stands above a complete one: its value is from an earlier epoch and cannot be compared.
    """

    def merit(trial: TrialRecord) -> tuple[bool, int, float]:
        value = trial.last(metric)
        reached = len(trial.epochs) if trial.state != "FAIL" else -1
        return trial.state == "COMPLETE", reached, -float("inf") if value is None else value

    return sorted(trials, key=merit, reverse=True)


def select_winner(trials: Iterable[TrialRecord], *, metric: str) -> TrialRecord:
    """Return the best trial that reached the horizon; raises InvalidInput if none did."""
    ranked = leaderboard(trials, metric=metric)
    if not ranked or ranked[0].state != "COMPLETE":
        states = sorted({trial.state for trial in ranked})
        raise InvalidInput(problem("search", "trials", "must hold one that reached the last epoch", states))
    return ranked[0]


def select_trial(trials: Iterable[TrialRecord], number: int) -> TrialRecord:
    """Return the trial of this number; raises InvalidInput unless it reached the horizon."""
    trial = next((trial for trial in trials if trial.number == number), None)
    if trial is None or trial.state != "COMPLETE":
        found = f"trial {number}, {trial.state}" if trial else f"no trial {number}"
        raise InvalidInput(problem("command line", "trial", "must be one that reached the last epoch", found))
    return trial


def pareto_front(values: Sequence[float], costs: Sequence[float]) -> list[bool]:
    """Return for each pair whether no other is at least as good in value and in cost, and better in one of them.

    Values are better if higher, costs if lower; of equal pairs all are on the front.
    """
    best_before = -float("inf")  # of everything that is cheaper
    found = [False] * len(values)
    by_cost: dict[float, list[int]] = {}
    for index, cost in enumerate(costs):
        by_cost.setdefault(cost, []).append(index)
    for cost in sorted(by_cost):
        best = max(values[index] for index in by_cost[cost])
        for index in by_cost[cost]:
            found[index] = values[index] == best and best > best_before
        best_before = max(best, best_before)
    return found
