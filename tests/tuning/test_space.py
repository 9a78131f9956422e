from pathlib import Path

import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fer_search.errors import InvalidInput, finding
from fer_search.tuning.space import read_space

DEFAULTS = {"epochs": 27, "rate": 0.01, "layers": 3, "adaptive": False, "kind": "a", "slack": 0.0}


def check(values):
    problems = []
    if not 0 < values["rate"] <= 1:
        problems.append(finding("rate", "must be in (0, 1]", values["rate"]))
    if values["layers"] < 1:
        problems.append(finding("layers", "must be at least 1", values["layers"]))
    if values["adaptive"] and values["layers"] == 1:
        problems.append(finding("adaptive", "must be off for one layer", True))
    return problems + [finding(key, "must be known", value) for key, value in values.items() if key not in DEFAULTS]


def read(table):
    return read_space(table, source=Path("my.toml"), defaults=DEFAULTS, check=check, metrics=["val_accuracy", "score"])


def problems(table):
    with pytest.raises(InvalidInput) as error:
        read(table)
    return error.value.problems


RATE = {"rate": {"low": 1e-4, "high": 0.1, "log": True}}


def test_domains_become_optunas_distributions_with_the_bounds_of_the_file():
    space = read(
        {
            "search": {"metric": "score", "num_trials": 7},
            "space": {
                **RATE,
                "layers": {"low": 3, "high": 9, "step": 2},
                "adaptive": {"choices": [False, True]},
                "kind": {"choices": ["a", "b"], "default": "b"},
            },
        }
    )
    assert space.domains == {
        "rate": FloatDistribution(1e-4, 0.1, log=True),
        "layers": IntDistribution(3, 9, step=2),
        "adaptive": CategoricalDistribution([False, True]),
        "kind": CategoricalDistribution(["a", "b"]),
    }
    assert space.first_point == {"rate": 0.01, "layers": 3, "adaptive": False, "kind": "b"}
    assert (space.horizon, space.num_trials, space.metric) == (27, 7, "score")


@pytest.mark.parametrize(
    ("epochs", "search", "rungs"),
    [
        (27, {}, (9,)), (9, {}, (3,)), (10, {}, (4,)), (27, {"first_rung": 1}, (1, 3, 9)), (300, {}, (100,)),
        (27, {"first_rung": 2, "eta": 2}, (2, 4, 8, 16)), (1, {}, ()), (2, {}, (1,)),
    ],
)  # fmt: skip
def test_rungs_start_at_a_third_of_the_horizon_and_grow_by_eta(epochs, search, rungs):
    space = read({"search": {"metric": "score", **search}, "base": {"epochs": epochs}, "space": RATE})
    assert space.rungs == rungs


def test_a_whole_number_field_is_searched_in_whole_numbers_and_a_real_one_in_real_numbers():
    space = read(
        {"search": {"metric": "score"}, "space": {"rate": {"low": 0.001, "high": 1}, "layers": {"low": 1, "high": 4}}}
    )
    assert isinstance(space.domains["rate"], FloatDistribution)
    assert isinstance(space.domains["layers"], IntDistribution)


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"space": {"rat": {"low": 0.1, "high": 1.0}}}, "my.toml: space.rat: must be a parameter (did you mean 'rate'?)"),
        ({"space": RATE, "spaces": {}}, "my.toml: spaces: must be one of the tables search, base, space (did you mean 'space'?)"),
        ({"space": RATE, "search": {"trials": 3}}, "my.toml: search.trials: must be a setting of the search"),
        ({"space": RATE, "search": {"num_trials": 0}}, "my.toml: search.num_trials: must be a whole number from 1, got 0"),
        ({"space": RATE, "search": {"metric": ["a"]}}, "my.toml: search.metric: must be a name, got ['a']"),
        ({"space": RATE, "search": {"seed": 2**33}}, "my.toml: search.seed: must be a whole number from 0, got 8589934592"),
        ({"space": RATE, "search": {"first_rung": 27}}, "search.first_rung: must be below the horizon, epochs = 27, got 27"),
        ({"space": {"adaptive": {"choices": [False, True]}, "layers": {"low": 1, "high": 3}}}, "space: at adaptive = True, layers = 1: adaptive: must be off for one layer"),
        ({"space": RATE, "search": {"eta": 1}}, "my.toml: search.eta: must be a whole number from 2, got 1"),
        ({"space": RATE, "search": {"metric": "acc"}}, "my.toml: search.metric: must be one of score, val_accuracy, got 'acc'"),
        ({"space": RATE, "search": {"resource": "epoch"}}, "must name a parameter (did you mean 'epochs'?), got 'epoch'"),
        ({"space": RATE, "search": {"resource": "kind"}}, "search.resource: must name a whole-number parameter, got 'kind'"),
        ({"space": {"epochs": {"low": 1, "high": 9}}}, "space.epochs: must not be searched, since it is the resource"),
        ({}, "my.toml: space: must name at least one parameter to search, got {}"),
        ({"space": RATE, "base": {"rate": 0.1}}, "base.rate: must not be fixed here and searched in [space] at once"),
        ({"space": RATE, "base": {"layers": 0}}, "my.toml: base.layers: must be at least 1, got 0"),
        ({"space": {"rate": {"low": 0.001, "high": 2.0}}}, "space.rate: at 2.0: rate: must be in (0, 1], got 2.0"),
        ({"space": {"rate": {"low": 0.1, "high": 0.01}}}, "space.rate.high: must be above low = 0.1, got 0.01"),
        ({"space": {"rate": {"low": 0.0, "high": 0.1, "log": True}}}, "space.rate.low: must be above 0 on a log scale"),
        ({"space": {"rate": {"low": 0.001}}}, "space.rate.high: must be a finite number, got None"),
        ({"space": {"rate": {"low": 0.001, "high": float("inf")}}}, "space.rate.high: must be a finite number, got inf"),
        ({"space": {"rate": {"low": 0.1, "high": 0.5}}}, "space.rate: must contain the default, or name another one"),
        ({"space": {"slack": {"low": 0.1, "high": 0.5, "log": True}}}, "space.slack: must contain the default, or name another one as `default`, got 0.0"),
        ({"space": {"rate": {"lo": 0.1, "high": 0.5}}}, "space.rate.lo: must be one of low, high, log, step, choices, default (did you mean 'low'?)"),
        ({"space": {"layers": {"low": 1.5, "high": 4}}}, "space.layers.low: must be a whole number, got 1.5"),
        ({"space": {"kind": {"low": 1, "high": 4}}}, "space.kind: must have choices, since the parameter is not a number"),
        ({"space": {"kind": {"choices": ["a"]}}}, "space.kind.choices: must be a list of at least two different values"),
        ({"space": {"kind": {"choices": ["b", "c"]}}}, "space.kind: must contain the default, or name another one"),
        ({"space": {"layers": {"choices": [0, 3]}}}, "space.layers: at 0: layers: must be at least 1, got 0"),
        ({"space": {"rate": 3}}, "space.rate: must be a table with low and high, or with choices, got 3"),
        ({"space": 3}, "my.toml: space: must be a table, got 3"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_said_with_file_key_rule_and_value(table, expected):
    table = {"search": {"metric": "score"}} | table
    table["search"] = {"metric": "score"} | table["search"]
    assert any(expected in line for line in problems(table)), problems(table)


def test_a_domain_is_judged_beside_the_first_values_of_the_others():
    """Adaptive cannot be on for one layer, which is the file's base; but the first trial has two."""
    adaptive = {"adaptive": {"choices": [False, True]}}
    base = {"search": {"metric": "score"}, "base": {"layers": 1}}
    assert problems({**base, "space": adaptive})
    layers = {"layers": {"low": 2, "high": 4, "default": 2}}
    space = read({"search": {"metric": "score"}, "space": {**adaptive, **layers}})
    assert space.first_point == {"adaptive": False, "layers": 2}


def test_all_problems_of_a_file_are_reported_at_once():
    found = problems({"search": {"eta": 0}, "base": {"layers": -1}, "space": {"rate": {"low": 1, "high": 0}, "x": {}}})
    assert len(found) >= 4
