import numpy as np
import pytest

from fer_search.errors import InvalidInput
from fer_search.journal import TrialRecord
from fer_search.tuning.select import pareto_front, select_trial


def test_the_front_is_what_no_other_pair_dominates():
    rng = np.random.default_rng(0)
    for _ in range(50):
        values, costs = rng.integers(0, 6, size=(2, 12)).tolist()  # with many ties
        pairs = list(zip(values, costs, strict=True))
        dominated = [
            any(v >= value and c <= cost and (v, c) != (value, cost) for v, c in pairs) for value, cost in pairs
        ]
        assert pareto_front(values, costs) == [not each for each in dominated]


def test_nobody_is_on_an_empty_front_and_one_alone_is():
    assert pareto_front([], []) == []
    assert pareto_front([0.3], [1e6]) == [True]


def test_a_trial_is_chosen_by_its_number_where_it_reached_the_horizon():
    trials = [TrialRecord(0, {}, 0.0, state="PRUNED"), TrialRecord(4, {}, 0.0, state="COMPLETE")]
    assert select_trial(trials, 4) is trials[1]
    with pytest.raises(InvalidInput, match=r"trial: must be one that reached the last epoch, got 'trial 0, PRUNED'"):
        select_trial(trials, 0)
