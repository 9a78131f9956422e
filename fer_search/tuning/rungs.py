"""The rungs of successive halving: who reached them and how well, who waits there, and who of those goes on.

A rung is a view of what trials have reported, so that it is rebuilt from them after a restart. Trials are numbers here;
who runs them is not known.
"""

import bisect
from collections.abc import Iterable

import numpy as np

Entry = tuple[float, int]
"""A trial's value at a rung and its negative number: of equal values, the older trial is the better."""


class Rungs:
    """The rungs at `levels`, from which the best 1/`eta` go on; each operation costs the logarithm of their size."""

    def __init__(self, levels: Iterable[int], *, eta: int) -> None:
        self.eta = eta
        self._values: dict[int, dict[int, float]] = {level: {} for level in sorted(levels)}
        self._reached: dict[int, list[Entry]] = {level: [] for level in self._values}  # worst first
        self._waiting: dict[int, list[Entry]] = {level: [] for level in self._values}

    def __contains__(self, level: int) -> bool:
        return level in self._values

    def reach(self, level: int, number: int, value: float) -> None:
        """Note a trial's value at a level."""
        self._values[level][number] = value
        bisect.insort(self._reached[level], (value, -number))

    def wait(self, level: int, number: int) -> None:
        """Note that a trial waits at a level that it has reached."""
        bisect.insort(self._waiting[level], (self._values[level][number], -number))

    def waits(self, level: int, number: int) -> bool:
        """Return whether a trial waits at a level."""
        value = self._values.get(level, {}).get(number)
        return value is not None and _find(self._waiting[level], (value, -number)) is not None

    def leave(self, level: int, number: int) -> None:
        """Note that a trial that waited goes on."""
        _remove(self._waiting[level], (self._values[level][number], -number))

    def forget(self, number: int) -> None:
        """Take a trial that failed out of all rungs: its values must not set the bar."""
        for level, values in self._values.items():
            if number in values:
                entry = (values.pop(number), -number)
                _remove(self._reached[level], entry)
                _remove(self._waiting[level], entry)

    def passes(self, level: int, number: int) -> bool:
        """Return whether a trial goes on where weak ones stop for good: among the best 1/eta of the others, or first.

        This is ASHA (Li et al. 2020, https://arxiv.org/abs/1810.05934) as Ray has it.
        """
        value = self._values[level][number]
        others = [other for other, entry in self._reached[level] if entry != -number]
        return not others or value >= float(np.percentile(others, 100 * (1 - 1 / self.eta)))

    def promotable(self) -> int | None:
        """Return the trial that is to go on, or None if a new one is to be started.

        From the highest level down, the best trial that waits goes on if it is among the best 1/eta of all that reached
        the level, whatever became of them since (ASHA, Li et al. 2020, https://arxiv.org/abs/1810.05934, algorithm 2).
        """
        for level in reversed(self._values):
            if waiting := self._waiting[level]:
                better = len(self._reached[level]) - bisect.bisect_right(self._reached[level], waiting[-1])
                if better < len(self._reached[level]) // self.eta:
                    return -waiting[-1][1]
        return None

    def best_waiting(self) -> int | None:
        """Return the best trial that waits at the highest level where one does, or None."""
        return next((-waiting[-1][1] for waiting in reversed(self._waiting.values()) if waiting), None)


def _find(entries: list[Entry], entry: Entry) -> int | None:
    index = bisect.bisect_left(entries, entry)
    return index if index < len(entries) and entries[index] == entry else None


def _remove(entries: list[Entry], entry: Entry) -> None:
    if (index := _find(entries, entry)) is not None:
        del entries[index]
