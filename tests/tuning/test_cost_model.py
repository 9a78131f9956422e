"""What a network costs is measured once, and interpolated where it was not."""

import numpy as np
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fer_search.journal import TrialRecord
from fer_search.tuning.cost_model import LogCosts, cost_of
from fer_search.tuning.encoding import Encoding

SPACE = {
    "width": CategoricalDistribution([0, 64, 96, 128]),
    "gate": CategoricalDistribution([False, True]),
    "size": IntDistribution(32, 96, step=16),
    "rate": FloatDistribution(0.0, 1.0),
}
NAMES = {"width", "gate", "size"}


def flops(point):
    """A backbone whose cost is that of its image, and parts on top, one of which costs more the wider the other is."""
    return point["size"] ** 2 * (1000 + 8 * point["width"] + (30 + point["width"]) * 2 * point["gate"])


def drawn(count, seed):
    encoding = Encoding(SPACE)
    return [encoding.decode(unit) for unit in np.random.default_rng(seed).random((count, 4))]


def learned(points):
    encoding = Encoding(SPACE)
    columns = encoding.columns(encoding.units(points))
    return LogCosts.learned([flops(point) for point in points], columns, encoding, names=NAMES)


def predicted(costs, points):
    encoding = Encoding(SPACE)
    return costs.predict(encoding.columns(encoding.units(points)))


def test_a_known_network_has_its_cost_whatever_else_is_set():
    points = drawn(30, seed=0)
    costs = learned(points)
    other = [{**point, "rate": 1 - point["rate"]} for point in points]
    assert predicted(costs, other) == pytest.approx(costs.known, abs=0.02)
    assert costs.known == pytest.approx(np.log([flops(point) for point in points]))


def test_unknown_networks_are_told_apart_after_few_known_ones():
    errors = []
    for seed in range(5):
        new = drawn(200, seed=100 + seed)
        errors.append(predicted(learned(drawn(20, seed=seed)), new) - np.log([flops(point) for point in new]))
    spread = np.std(np.log([flops(point) for point in drawn(200, seed=7)]))
    assert np.sqrt(np.mean(np.square(errors))) < 0.15 * spread


def test_one_network_is_enough_to_predict_its_cost_everywhere():
    point = drawn(1, seed=0)[0]
    assert predicted(learned([point] * 3), drawn(4, seed=1)) == pytest.approx(np.log(flops(point)))


def test_only_a_network_that_no_trial_has_had_is_measured():
    measured = []

    def measure(parameters):
        measured.append(parameters["size"])
        return 7.0

    trials = [
        TrialRecord(0, {"size": 3, "rate": 0.1}, 0.0),
        TrialRecord(1, {"size": 3, "rate": 0.2}, 0.0, cost=5.0),
        TrialRecord(2, {"size": 4, "rate": 0.2}, 0.0, cost=6.0),
    ]
    found = [cost_of({"size": size, "rate": 0.9}, trials, fields=("size",), measure=measure) for size in (3, 4, 5)]
    assert (found, measured) == ([5.0, 6.0, 7.0], [5])
