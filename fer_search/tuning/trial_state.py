"""What Ray's searcher and scheduler need to know of a search or a race: which trial is next, and whether it goes on."""

from collections.abc import Mapping
from typing import Protocol

from fer_search.journal import Journal, TrialRecord


class TrialState(Protocol):
    """Trials and decisions over them; everything that happens is in `journal` before it has a consequence."""

    journal: Journal

    @property
    def metric(self) -> str:
        """What is maximised."""
        ...

    @property
    def num_running(self) -> int:
        """How many trials a worker has."""
        ...

    @property
    def num_places(self) -> int:
        """How many places those take: a trial that found too little memory in one has several."""
        ...

    @property
    def num_waiting(self) -> int:
        """How many trials could begin now, or go on, if there were workers for them."""
        ...

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run."""
        ...

    @property
    def finalists(self) -> frozenset[int]:
        """The trials that have ended and whose last checkpoint is worth its place on the disk."""
        ...

    def next_trial(self) -> TrialRecord | None:
        """Return the trial that a free worker is to run, from where it is, or None if there is none now."""
        ...

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch and return whether the trial goes on; one that is known was repeated after a pause."""
        ...

    def interrupt(self, number: int) -> None:
        """Let a running trial wait for the search to go on, at the epoch that it has reported last."""
        ...

    def retry(self, number: int, message: str, *, node_lost: bool = False) -> None:
        """Record a failure of a running trial, or the loss of its node; it is tried again from its last epoch on."""
        ...

    def widen(self, number: int) -> None:
        """Let a running trial that does not fit beside others come again with twice the places, from its last epoch."""
        ...

    def fail(self, number: int, message: str) -> None:
        """Record a trial that diverged or broke."""
        ...

    def close(self) -> None:
        """End what still waits, when there is nothing left to run."""
        ...
