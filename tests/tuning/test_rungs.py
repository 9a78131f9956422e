"""Promotions worked out by hand, and against sorting."""

import numpy as np
import pytest

from fer_search.tuning.rungs import Rungs


def filled(*, eta=3, waiting=(), **levels):
    """Return rungs with the values, by trial, at levels named e1, e3, ...; who waits is given as (level, trial)."""
    rungs = Rungs([int(name[1:]) for name in levels], eta=eta)
    for name, values in levels.items():
        for number, value in values.items():
            rungs.reach(int(name[1:]), number, value)
    for level, number in waiting:
        rungs.wait(level, number)
    return rungs


def test_nothing_is_promoted_before_eta_trials_have_reported():
    assert filled(e1={0: 0.9, 1: 0.1}, waiting=[(1, 0), (1, 1)]).promotable() is None


def test_the_best_third_goes_on_and_the_rest_waits():
    rungs = filled(e1={0: 0.1, 1: 0.5, 2: 0.3, 3: 0.2, 4: 0.4, 5: 0.0}, waiting=[(1, n) for n in range(6)])
    assert rungs.promotable() == 1
    rungs.leave(1, 1)
    assert rungs.promotable() == 4
    rungs.leave(1, 4)
    assert rungs.promotable() is None
    assert rungs.best_waiting() == 2
    assert (rungs.waits(1, 2), rungs.waits(1, 4), rungs.waits(3, 2)) == (True, False, False)


def test_the_highest_level_goes_first():
    values = {n: n / 10 for n in range(9)}
    waiting = [(1, 5), (3, 6), (3, 7), (3, 8)]
    assert filled(e1=values, e3={6: 0.6, 7: 0.7, 8: 0.8}, waiting=waiting).promotable() == 8
    assert filled(e1=values, e3={7: 0.7, 8: 0.8}, waiting=[(1, 6), (3, 7), (3, 8)]).promotable() == 6


def test_of_equals_the_older_one_goes_on():
    assert filled(e1=dict.fromkeys((4, 2, 7), 0.5), waiting=[(1, 4), (1, 7), (1, 2)]).promotable() == 2


def test_a_trial_that_failed_neither_goes_on_nor_counts():
    rungs = filled(e1={0: 0.9, 1: 0.1, 2: 0.2}, e3={0: 0.9}, waiting=[(1, 1), (1, 2), (3, 0)])
    rungs.forget(0)
    assert rungs.promotable() is None
    assert rungs.best_waiting() == 2
    rungs.reach(1, 3, 0.15)  # of three now, and without the failed one there
    assert rungs.promotable() == 2


@pytest.mark.parametrize("seed", range(20))
def test_it_decides_as_sorting_does(seed):
    rng = np.random.default_rng(seed)
    values = {level: {int(n): float(rng.integers(20)) for n in rng.choice(99, 30, replace=False)} for level in (1, 3)}
    waiting = [(level, number) for level in (1, 3) for number in values[level] if rng.random() < 0.3]
    rungs = filled(e1=values[1], e3=values[3], waiting=waiting)
    for number in rng.choice(99, 5, replace=False):
        rungs.forget(int(number))
        for level in (1, 3):
            values[level].pop(int(number), None)
            waiting = [entry for entry in waiting if entry != (level, int(number))]
    expected = None
    for level in (3, 1):
        best = sorted(values[level], key=lambda n: (-values[level][n], n))[: len(values[level]) // 3]
        expected = next((number for number in best if (level, number) in waiting), None)
        if expected is not None:
            break
    assert rungs.promotable() == expected
