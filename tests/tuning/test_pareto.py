"""Orders and fronts against brute force, and the expected widening of a front against a simulation."""

import numpy as np
import pytest

from fer_search.tuning.pareto import MARGIN, Front, pareto_order
from fer_search.tuning.sampler import expected_improvement


def dominates(first, second):
    """Whether a (value, cost) is at least as good in both, and better in one."""
    return first[0] >= second[0] and first[1] <= second[1] and first != second


def peeled(points):
    """Return the fronts of points, each a set of indices, by comparing every point with every other one."""
    left, fronts = set(range(len(points))), []
    while left:
        front = {n for n in left if not any(dominates(points[other], points[n]) for other in left)}
        fronts.append(front)
        left -= front
    return fronts


def area(points, *, worst, end):
    """Return the area under the best value at each cost up to `end`, above `worst`."""
    grid = np.linspace(-2.0, end, 20_001)
    best = [max([value for value, cost in points if cost <= at], default=worst) for at in grid[:-1]]
    return float(np.sum(np.maximum(np.array(best) - worst, 0)) * (grid[1] - grid[0]))


@pytest.mark.parametrize("seed", range(30))
def test_the_order_is_that_of_peeling_one_front_after_another(seed):
    rng = np.random.default_rng(seed)
    values, costs = rng.integers(12, size=40) / 10, rng.integers(12, size=40) / 4  # with many equals
    order = pareto_order(values, costs)
    assert sorted(order) == list(range(40))
    points = list(zip(values.tolist(), costs.tolist(), strict=True))
    for front in peeled(points):
        assert set(order[: len(front)]) == front
        assert values[order[0]] == max(values[list(front)])
        order = order[len(front) :]


def test_within_a_front_the_best_comes_first_and_then_what_is_farthest_from_all_before():
    """By hand: the ends, then the middle, then what lies between; the dominated one is last although it is second."""
    values = np.array([0.1, 0.5, 0.5, 0.3, 0.25, 0.49])
    costs = np.array([0.0, 4.0, 4.0, 2.0, 1.5, 4.5])
    assert pareto_order(values, costs) == [1, 0, 3, 4, 2, 5]


def test_without_a_difference_in_cost_the_order_is_that_of_the_values():
    values = np.array([0.3, 0.9, 0.1, 0.9, 0.5])
    assert pareto_order(values, np.full(5, 2.0)) == [1, 3, 4, 0, 2]


def test_the_staircase_of_a_front_is_the_one_drawn_by_hand():
    front = Front.of(np.array([0.1, 0.6, 0.4, 0.6, 0.0]), np.array([0.0, 3.0, 1.0, 4.0, 2.0]))
    assert front.edges.tolist() == [-np.inf, 0.0, 1.0, 3.0, 4.0 + MARGIN * 4.0]
    assert front.bars.tolist() == [0.0, 0.1, 0.4, 0.6]
    assert front.widths(np.array([2.0, -1.0, 9.0])).tolist() == [[0, 0, 1, 2], [1, 1, 2, 2], [0, 0, 0, 0]]


@pytest.mark.parametrize("seed", range(3))
def test_the_expected_widening_of_a_front_is_the_mean_gain_of_area_in_a_simulation(seed):
    rng = np.random.default_rng(seed)
    values, costs = rng.random(6), rng.random(6)
    front = Front.of(values, costs)
    points, end = list(zip(values.tolist(), costs.tolist(), strict=True)), float(front.edges[-1])
    mean, std, cost = 0.6, 0.3, 0.4
    before = area(points, worst=values.min(), end=end)
    gains = [
        area([*points, (mean + std * draw, cost)], worst=values.min(), end=end) - before
        for draw in np.random.default_rng(9).standard_normal(20)
    ]
    draws = mean + std * np.random.default_rng(9).standard_normal(20)
    widths = front.widths(np.array([cost]))[0]
    exact = [float(np.sum(widths * np.maximum(draw - front.bars, 0))) for draw in draws]
    assert exact == pytest.approx(gains, abs=2e-3)
    expected = np.sum(widths * expected_improvement(np.array([[mean]]), np.array([[std]]), front.bars))
    many = mean + std * np.random.default_rng(1).standard_normal((200_000, 1))
    assert expected == pytest.approx((widths * np.maximum(many - front.bars, 0)).sum(1).mean(), rel=0.01)


def test_where_all_cost_the_same_only_the_value_counts():
    front = Front.of(np.array([0.3, 0.5]), np.array([1.0, 1.0]))
    widths = front.widths(np.array([1.0, 1.0]))
    assert widths.tolist() == [[0.0, 1.0], [0.0, 1.0]]
    assert front.bars.tolist() == [0.3, 0.5]
