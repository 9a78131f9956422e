"""Which trial wins, and why the others do not."""

from collections.abc import Iterable

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
