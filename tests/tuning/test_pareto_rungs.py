"""Promotions on a front worked out by hand, and against the rungs without a cost."""

import math

import numpy as np
import pytest

from fer_search.tuning.pareto_rungs import ParetoRungs
from fer_search.tuning.rungs import Rungs


def filled(values, costs, *, eta=3, waiting=()):
    rungs = ParetoRungs([1, 3], eta=eta, log_cost=lambda number: math.log(costs[number]))
    for number, value in values.items():
        rungs.reach(1, number, value)
    for number in waiting:
        rungs.wait(1, number)
    return rungs


def test_a_cheap_network_that_is_slightly_worse_goes_on_before_a_better_one_that_another_dominates():
    values = {0: 0.60, 1: 0.59, 2: 0.58, 3: 0.50, 4: 0.4, 5: 0.3}
    costs = {0: 100, 1: 110, 2: 120, 3: 10, 4: 100, 5: 100}
    rungs = filled(values, costs, waiting=values)
    assert rungs.promotable() == 0
    rungs.leave(1, 0)
    assert rungs.promotable() == 3  # by the metric alone it would be trial 1
    rungs.leave(1, 3)
    assert rungs.promotable() is None
    assert rungs.best_waiting() == 1


def test_a_trial_that_stops_the_weak_lets_the_front_through():
    values, costs = {0: 0.6, 1: 0.5}, {0: 100, 1: 200, 2: 10, 3: 150, 4: 200}
    rungs = filled(values, costs)
    assert (rungs.passes(1, 0), rungs.passes(1, 1)) == (True, False)
    rungs.reach(1, 2, 0.1)
    assert not rungs.passes(1, 2)  # the best of three is trial 0
    rungs.reach(1, 3, 0.2)
    rungs.reach(1, 4, 0.1)
    assert [rungs.passes(1, number) for number in range(5)] == [True, False, True, False, False]


def test_a_trial_that_failed_neither_goes_on_nor_counts():
    rungs = filled({0: 0.9, 1: 0.1, 2: 0.2}, dict.fromkeys(range(4), 5), waiting=[1, 2])
    rungs.forget(0)
    assert rungs.promotable() is None
    assert (rungs.waits(1, 2), rungs.waits(3, 2), 1 in rungs, 2 in rungs) == (True, False, True, False)
    rungs.reach(1, 3, 0.15)
    assert rungs.promotable() == 2
    rungs.forget(2)
    assert rungs.best_waiting() == 1


@pytest.mark.parametrize("seed", range(10))
def test_networks_that_cost_the_same_are_promoted_as_without_a_cost(seed):
    rng = np.random.default_rng(seed)
    one, other = ParetoRungs([1, 3], eta=3, log_cost=lambda number: 2.0), Rungs([1, 3], eta=3)
    for number in range(60):
        for rungs, value in zip((one, other), [float(rng.integers(20))] * 2, strict=True):
            rungs.reach(1, number, value)
            rungs.wait(1, number)
        assert one.promotable() == other.promotable()
        if (promoted := one.promotable()) is not None:
            value = float(rng.integers(20))
            for rungs in (one, other):
                rungs.leave(1 if rungs.waits(1, promoted) else 3, promoted)
                if not rungs.waits(3, promoted):
                    rungs.reach(3, promoted, value)
        if number % 9 == 8:
            for rungs in (one, other):
                rungs.forget(number - 5)
        assert one.best_waiting() == other.best_waiting()
