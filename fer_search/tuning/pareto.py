"""Two objectives: which of two kinds of good is better, and by how much a new point widens the front.

Values are better if higher, costs if lower. Costs come as logarithms, since what matters of them is a factor.
"""

import bisect
from dataclasses import dataclass
from typing import Self

import numpy as np
from numpy.typing import NDArray

from fer_search.tuning.select import pareto_front

Array = NDArray[np.float64]

MARGIN = 0.25
"""How far beyond the most expensive point a front still counts, as a share of the range of costs."""


def pareto_order(values: Array, log_costs: Array) -> list[int]:
    """Return the indices of points by their value (n,) and cost (n,), the best first.

    Non-dominated sorting: the front, then the front of the rest, and so on. Within a front, the best value comes first
    and then always the point that is farthest from all before it (epsilon-net), both axes scaled to the front's range.
    So do Schmucker et al. 2021 (https://arxiv.org/abs/2106.12639) in ASHA with several objectives. Of equals the
    earlier is the better.
    """
    members: dict[int, list[int]] = {}
    for index, front in enumerate(_fronts(values, log_costs)):
        members.setdefault(front, []).append(index)
    order: list[int] = []
    for front in sorted(members):
        chosen = np.array(members[front])
        order += chosen[_spread(values[chosen], log_costs[chosen])].tolist()
    return order


@dataclass(frozen=True)
class Front:
    """The best value that is known at each cost: a staircase with `bars` (k,) from one of `edges` (k + 1,) to the next.

    Below the cheapest point it is the worst value of all, and it ends MARGIN beyond the most expensive one.
    """

    edges: Array
    bars: Array

    @classmethod
    def of(cls, values: Array, log_costs: Array) -> Self:
        """Return the front of points with these values (n,) and costs (n,)."""
        on_front = np.array(pareto_front(values.tolist(), log_costs.tolist()))
        costs, first = np.unique(log_costs[on_front], return_index=True)
        end = float(log_costs.max()) + (MARGIN * float(np.ptp(log_costs)) or 1.0)
        return cls(np.array([-np.inf, *costs, end]), np.array([values.min(), *values[on_front][first]]))

    def widths(self, log_costs: Array) -> Array:
        """Return (n, k): over how much of each step a point of such a cost (n,) reaches, as it costs no more there.

        A point of value y adds the sum of width * max(0, y - bar) to the area under the front. As the cost of a
        configuration is known before its value, its expected hypervolume improvement (Emmerich, Giannakoglou, Naujoks
        2006, https://doi.org/10.1109/TEVC.2005.859463) is exactly the sum of width * expected improvement over the bar.
        """
        begin = np.maximum(self.edges[:-1], log_costs[:, None])
        return np.asarray(np.maximum(self.edges[1:] - begin, 0.0))


def _fronts(values: Array, log_costs: Array) -> list[int]:
    """Return for each point the number of its front, 0 for the points that none dominates, in O(n log n).

    From the cheapest point on, a front dominates a point if the best value in it so far is as good.
    """
    numbers = [0] * len(values)
    worse: list[float] = []  # minus the best value of each front so far, which ascends
    before: tuple[float, float] | None = None
    for index in np.lexsort((-values, log_costs)).tolist():
        point = (float(values[index]), float(log_costs[index]))
        if point != before:  # equal points do not dominate each other
            front = bisect.bisect_right(worse, -point[0])
            worse[front : front + 1] = [-point[0]]
        numbers[index], before = front, point
    return numbers


def _spread(values: Array, log_costs: Array) -> list[int]:
    """Return the indices of one front's points in the order of an epsilon-net that begins at the best value."""
    points = np.stack([values, log_costs], axis=1)
    ranges = np.ptp(points, axis=0)
    points = points / np.where(ranges > 0, ranges, 1.0)
    chosen = [int(values.argmax())]
    nearest = np.full(len(points), np.inf)
    for _ in range(len(points) - 1):
        nearest = np.minimum(nearest, np.linalg.norm(points - points[chosen[-1]], axis=1))
        nearest[chosen] = -1.0
        chosen.append(int(nearest.argmax()))
    return chosen
