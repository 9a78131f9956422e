"""The rungs of successive halving where trials have a cost too: the same questions as `Rungs` answers, on a front.

The order of a rung is computed when it is asked for, since one more trial may change the place of all others.
"""

from collections.abc import Callable, Iterable

import numpy as np

from fer_search.tuning.pareto import pareto_order


class ParetoRungs:
    """The rungs at `levels`, from which the best 1/`eta` by `pareto_order` go on; `log_cost` is that of a trial."""

    def __init__(self, levels: Iterable[int], *, eta: int, log_cost: Callable[[int], float]) -> None:
        self.eta, self._log_cost = eta, log_cost
        self._values: dict[int, dict[int, float]] = {level: {} for level in sorted(levels)}
        self._waiting: dict[int, set[int]] = {level: set() for level in self._values}
        self._orders: dict[int, list[int]] = {}  # what is known of the present trials

    def __contains__(self, level: int) -> bool:
        return level in self._values

    def reach(self, level: int, number: int, value: float) -> None:
        """Note a trial's value at a level."""
        self._values[level][number] = value
        self._orders.pop(level, None)

    def wait(self, level: int, number: int) -> None:
        """Note that a trial waits at a level that it has reached."""
        self._waiting[level].add(number)

    def waits(self, level: int, number: int) -> bool:
        """Return whether a trial waits at a level."""
        return number in self._waiting.get(level, ())

    def leave(self, level: int, number: int) -> None:
        """Note that a trial that waited goes on."""
        self._waiting[level].discard(number)

    def forget(self, number: int) -> None:
        """Take a trial that failed out of all rungs: its values must not set the bar."""
        for level, values in self._values.items():
            if values.pop(number, None) is not None:
                self._waiting[level].discard(number)
                self._orders.pop(level, None)

    def passes(self, level: int, number: int) -> bool:
        """Return whether a trial goes on where weak ones stop: among the best 1/eta, rounded up, of those so far."""
        order = self._order(level)
        return order.index(number) * self.eta < len(order)

    def promotable(self) -> int | None:
        """Return the trial that is to go on, or None if a new one is to be started; as `Rungs.promotable`."""
        for level in reversed(self._values):
            if self._waiting[level]:
                order = self._order(level)
                for number in order[: len(order) // self.eta]:
                    if number in self._waiting[level]:
                        return number
        return None

    def best_waiting(self) -> int | None:
        """Return the best trial that waits at the highest level where one does, or None."""
        for level in reversed(self._values):
            if self._waiting[level]:
                return next(number for number in self._order(level) if number in self._waiting[level])
        return None

    def _order(self, level: int) -> list[int]:
        """Return the trials at a level, best first; of equals the older."""
        if level not in self._orders:
            numbers = sorted(self._values[level])
            values = np.array([self._values[level][number] for number in numbers])
            costs = np.array([self._log_cost(number) for number in numbers])
            self._orders[level] = [numbers[index] for index in pareto_order(values, costs)]
        return self._orders[level]
