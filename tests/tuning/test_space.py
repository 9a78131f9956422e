from math import log
from pathlib import Path

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution

from fer_search.errors import InvalidInput, finding
from fer_search.tuning.space import Prior
from fer_search.tuning.space_file import read_space

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
    return read_space(
        table,
        source=Path("my.toml"),
        defaults=DEFAULTS,
        check=check,
        metrics=["val_accuracy", "score"],
        costs=["flops", "latency"],
        cost_fields=["kind", "layers"],
    )


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


def test_a_cost_follows_from_what_is_searched_of_its_fields_and_from_what_decides_on_them():
    layers = {"low": 1, "high": 9, "when": {"adaptive": False}}
    space = read(
        {
            "search": {"metric": "score", "cost": "latency"},
            "space": {**RATE, "adaptive": {"choices": [False, True]}, "layers": layers},
        }
    )
    assert (space.cost, space.cost_fields) == ("latency", ("layers",))
    assert space.cost_dimensions == {"adaptive", "layers"}
    plain = read({"search": {"metric": "score"}, "space": RATE})
    assert (plain.cost, plain.cost_fields, plain.cost_dimensions) == (None, (), frozenset())


@pytest.mark.parametrize(
    ("epochs", "search", "rungs"),
    [
        (27, {}, (1, 3, 9)), (9, {}, (1, 3)), (10, {}, (1, 3, 9)), (27, {"first_rung": 9}, (9,)), (300, {}, (12, 36, 108)),
        (27, {"first_rung": 2, "eta": 2}, (2, 4, 8, 16)), (64, {"eta": 2}, (8, 16, 32)), (1, {}, ()), (2, {}, (1,)),
    ],
)  # fmt: skip
def test_rungs_start_three_halvings_before_the_horizon_and_grow_by_eta(epochs, search, rungs):
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
        ({"space": RATE, "spaces": {}}, "my.toml: spaces: must be one of the tables search, base, space, points (did you mean 'space'?)"),
        ({"space": RATE, "search": {"trials": 3}}, "my.toml: search.trials: must be a setting of the search"),
        ({"space": RATE, "search": {"num_trials": 0}}, "my.toml: search.num_trials: must be a whole number from 1, got 0"),
        ({"space": RATE, "search": {"metric": ["a"]}}, "my.toml: search.metric: must be a name, got ['a']"),
        ({"space": RATE, "search": {"seed": 2**33}}, "my.toml: search.seed: must be a whole number from 0, got 8589934592"),
        ({"space": RATE, "search": {"first_rung": 27}}, "search.first_rung: must be below the horizon, epochs = 27, got 27"),
        ({"space": {"adaptive": {"choices": [False, True]}, "layers": {"low": 1, "high": 3}}}, "space: at adaptive = True, layers = 1: adaptive: must be off for one layer"),
        ({"space": RATE, "search": {"eta": 1}}, "my.toml: search.eta: must be a whole number from 2, got 1"),
        ({"space": RATE, "search": {"metric": "acc"}}, "my.toml: search.metric: must be one of score, val_accuracy, got 'acc'"),
        ({"space": {"layers": {"low": 1, "high": 3}}, "search": {"cost": "price"}}, "my.toml: search.cost: must be one of flops, latency, got 'price'"),
        ({"space": {"layers": {"low": 1, "high": 3}}, "search": {"cost": 3}}, "my.toml: search.cost: must be a name, got 3"),
        ({"space": RATE, "search": {"cost": "flops"}}, "my.toml: search.cost: must not be given, since it is the same everywhere: none of kind, layers is searched, got 'flops'"),
        ({"space": {"layers": {"low": 1, "high": 3}}, "search": {"cost": "flops", "searcher": "tpe"}}, "my.toml: search.cost: must not be given, since searcher tpe looks at the metric alone, got 'flops'"),
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
        ({"space": {"rate": {"lo": 0.1, "high": 0.5}}}, "space.rate.lo: must be one of low, high, log, step, choices, default, when, prior (did you mean 'low'?)"),
        ({"space": {"layers": {"low": 1.5, "high": 4}}}, "space.layers.low: must be a whole number, got 1.5"),
        ({"space": {"kind": {"low": 1, "high": 4}}}, "space.kind: must have choices, since the parameter is not a number"),
        ({"space": {"kind": {"choices": ["a"]}}}, "space.kind.choices: must be a list of at least two different values"),
        ({"space": {"kind": {"choices": ["b", "c"]}}}, "space.kind: must contain the default, or name another one"),
        ({"space": {"layers": {"choices": [0, 3]}}}, "space.layers: at 0: layers: must be at least 1, got 0"),
        ({"space": {"rate": 3}}, "space.rate: must be a table with low and high, or with choices, got 3"),
        ({"space": 3}, "my.toml: space: must be a table, got 3"),
        ({"space": {"kind": {"choices": ["a", ["b"]]}}}, "space.kind.choices: must hold strings, booleans or numbers"),
        ({"space": {"layers": {"choices": [3, 1, True]}}}, "space.layers.choices: must be a list of at least two different values"),
        ({"space": {"layers": {"low": 1, "high": 4, "default": 3.0}}}, "space.layers: must contain the default, or name another one as `default`, got 3.0"),
        ({"space": {"rate": {"low": 0.001, "high": 3.0, "default": 2.0}}}, "space.rate: at 2.0: rate: must be in (0, 1], got 2.0"),
        ({"space": RATE, "search": {"searcher": "tpes"}}, "search.searcher: must be one of curves, tpe, random, got 'tpes'"),
        ({"space": RATE, "search": {"scheduler": 3}}, "search.scheduler: must be a name, got 3"),
        ({"space": RATE, "search": {"scheduler": "asha"}}, "search.scheduler: must be one of promotion, stopping, none, got 'asha'"),
        ({"space": RATE, "search": {"scheduler": "none", "eta": 3}}, "search.eta: must not be given, since it has no effect while scheduler is none, got 3"),
        ({"space": RATE, "search": {"scheduler": "none", "first_rung": 3}}, "search.first_rung: must not be given, since it has no effect while scheduler is none, got 3"),
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


@pytest.mark.parametrize(
    ("search", "expected"),
    [({}, ("curves", "promotion", (1, 3, 9))), ({"searcher": "tpe", "scheduler": "stopping"}, ("tpe", "stopping", (1, 3, 9))),
     ({"searcher": "random", "scheduler": "none"}, ("random", "none", ()))],
)  # fmt: skip
def test_a_file_says_who_chooses_points_and_who_stops_trials(search, expected):
    space = read({"search": {"metric": "score", **search}, "space": RATE})
    assert (space.searcher, space.scheduler, space.rungs) == expected


# Conditions. `rate` has a range for each kind, `layers` is searched for kind b alone, `slack` for few layers alone.
WHERE = {
    "slack": {"when": {"layers": [2, 3]}, "low": 0.0, "high": 0.5},
    "rate": [
        {"when": {"kind": "a"}, "low": 0.001, "high": 0.1},
        {"when": {"kind": ["b", "c"]}, "low": 0.2, "high": 1.0, "default": 0.5},
    ],
    "layers": {"when": {"kind": "b"}, "low": 1, "high": 9, "default": 5},
    "kind": {"choices": ["a", "b", "c"]},
}


def conditional(base=None, points=(), **space):
    tables = {"search": {"metric": "score"}, "base": base or {}, "space": {**WHERE, **space}}
    return tables | ({"points": list(points)} if points else {})


def ask(space, point):
    study = optuna.create_study()
    study.enqueue_trial(point)
    trial = study.ask()
    return trial, space.suggest(trial)


@pytest.mark.parametrize(
    ("wanted", "asked", "complete"),
    [
        ({"kind": "a", "rate[kind=\"a\"]": 0.02, "slack": 0.3}, ["kind", "rate[kind=\"a\"]", "slack"],
         {"kind": "a", "rate": 0.02, "layers": 3, "slack": 0.3}),
        ({"kind": "b", "rate[kind=\"b\"|\"c\"]": 0.7, "layers": 8}, ["kind", "rate[kind=\"b\"|\"c\"]", "layers"],
         {"kind": "b", "rate": 0.7, "layers": 8, "slack": 0.0}),
        ({"kind": "b", "rate[kind=\"b\"|\"c\"]": 0.7, "layers": 2, "slack": 0.4},
         ["kind", "rate[kind=\"b\"|\"c\"]", "layers", "slack"],
         {"kind": "b", "rate": 0.7, "layers": 2, "slack": 0.4}),
    ],
)  # fmt: skip
def test_optuna_is_asked_for_what_applies_behind_what_it_depends_on(wanted, asked, complete):
    """Three layers are the recipe's own, which hold where kind is a, and so does slack."""
    space = read(conditional())
    trial, point = ask(space, wanted)
    assert point == wanted == trial.params
    assert list(point) == list(trial.distributions)
    assert sorted(point) == sorted(asked)
    assert {name: space.domains[name] for name in point} == trial.distributions
    assert space.complete(point) == DEFAULTS | complete


def test_what_is_not_searched_somewhere_has_the_value_of_the_base_there():
    space = read(conditional(base={"layers": 2}))
    assert space.complete(space.first_point)["layers"] == 2
    _, point = ask(space, {"kind": "b", "layers": 7})
    assert space.complete(point)["layers"] == 7


def test_one_parameter_with_two_ranges_is_two_to_optuna_and_one_to_a_reader():
    space = read(conditional())
    assert set(space.domains) == {"kind", "layers", "slack", 'rate[kind="a"]', 'rate[kind="b"|"c"]'}
    assert sorted(space.searched) == ["kind", "layers", "rate", "slack"]
    assert space.first_point == {"kind": "a", 'rate[kind="a"]': 0.01, "slack": 0.0}


def test_a_point_without_a_value_that_it_needs_is_not_completed():
    with pytest.raises(KeyError, match="layers"):
        read(conditional()).complete({"kind": "b", 'rate[kind="b"|"c"]': 0.7})


KIND = {"kind": {"choices": ["a", "b"]}}
ON_RATE = {"low": 0.001, "high": 0.1}


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ({"space": {"rate": {**ON_RATE, "when": {"kin": "a"}}, **KIND}}, "space.rate.when.kin: must be a parameter (did you mean 'kind'?), got 'a'"),
        ({"space": {"rate": {**ON_RATE, "when": {"kind": "a"}}}}, "space.rate.when.kind: must be about a searched parameter: kind = 'a' is fixed, so it always holds, got 'a'"),
        ({"space": {"rate": {**ON_RATE, "when": {"kind": "b"}}}}, "space.rate.when.kind: must be about a searched parameter: kind = 'a' is fixed, so it never holds, got 'b'"),
        ({"space": {"rate": {**ON_RATE, "when": {"kind": "z"}}, **KIND}}, "space.rate.when.kind: must be what kind can be, got 'z'"),
        ({"space": {"rate": {**ON_RATE, "when": {"layers": True}}, "layers": {"low": 1, "high": 4}}}, "space.rate.when.layers: must be what layers can be, got True"),
        ({"space": {"rate": {**ON_RATE, "when": {"layers": 4}}, "layers": {"low": 1, "high": 5, "step": 2}}}, "space.rate.when.layers: must be what layers can be, got 4"),
        ({"space": {"rate": {**ON_RATE, "when": {"kind": []}}, **KIND}}, "space.rate.when.kind: must be a value or a list of different values, got []"),
        ({"space": {"rate": {**ON_RATE, "when": {"kind": ["a", "a"]}}, **KIND}}, "space.rate.when.kind: must be a value or a list of different values"),
        ({"space": {"rate": {**ON_RATE, "when": {"kind": ["a", "b"]}}, **KIND}}, "space.rate.when: must not hold everywhere, got {'kind': ('a', 'b')}"),
        ({"space": {"rate": {**ON_RATE, "when": {"slack": 0.1}}, "slack": {"low": 0.0, "high": 1.0}}}, "space.rate.when.slack: must be about choices or whole numbers, which slack is not, got 0.1"),
        ({"space": {"rate": {**ON_RATE, "when": {}}}}, "space.rate.when: must be a table of other parameters and the values that they have, got {}"),
        ({"space": {"rate": {**ON_RATE, "when": 3}}}, "space.rate.when: must be a table of other parameters and the values that they have, got 3"),
        ({"space": {"layers": {"low": 1, "high": 4, "when": {"layers": 3}}}}, "space.layers.when: must not depend on the parameter itself, got 'layers -> layers'"),
        ({"space": {"layers": {"low": 2, "high": 4, "when": {"kind": "a"}}, "kind": {"choices": ["a", "b"], "when": {"adaptive": True}}, "adaptive": {"choices": [False, True], "when": {"layers": 3}}}}, "must not depend on the parameter itself, got 'layers -> kind -> adaptive -> layers'"),
        ({"space": {**KIND, "rate": [{**ON_RATE, "when": {"kind": "a"}}, {**ON_RATE, "when": {"kind": "a"}}]}}, "space.rate[2].when: must exclude that of space.rate[1], got {'kind': 'a'}"),
        ({"space": {**KIND, "rate": [{**ON_RATE, "when": {"kind": "a"}}, {**ON_RATE, "when": {"kind": ["b", "a"]}}]}}, "space.rate[2].when: must exclude that of space.rate[1], but both hold where kind = 'a', got {'kind': ('b', 'a')}"),
        ({"space": {**KIND, "rate": [ON_RATE, {**ON_RATE, "when": {"kind": "b"}}]}}, "space.rate[2].when: must exclude that of space.rate[1], but both hold where kind = 'b'"),
        ({"space": {**KIND, "rate": [ON_RATE, ON_RATE]}}, "space.rate[2].when: must exclude that of space.rate[1], got {}"),
        ({"space": {**KIND, "rate": [{**ON_RATE, "when": {"kind": "a"}}, {"low": 1, "when": {"kind": "b"}}]}}, "space.rate[2].high: must be a finite number, got None"),
        ({"space": {**KIND, "rate": []}}, "space.rate: must be a table with low and high, or with choices, got []"),
        ({"space": {**KIND, "layers": {"low": 2, "high": 4, "when": {"kind": "b"}}, "rate": {**ON_RATE, "when": {"kind": "a", "layers": 4}}}}, "space.rate.when: must hold somewhere, got {'kind': ('a',), 'layers': (4,)}"),
        ({"base": {"rate": 0.01}, "space": {**KIND, "rate": [{**ON_RATE, "when": {"kind": "a"}}, {**ON_RATE, "when": {"kind": "b"}}]}}, "base.rate: must not be fixed here and searched in [space] at once, got 0.01"),
        ({"space": {**KIND, "rate": {"low": 0.01, "high": 2.0, "when": {"kind": "b"}}}}, "space.rate: at 2.0 where kind = 'b': rate: must be in (0, 1], got 2.0"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_condition_is_said_with_file_key_rule_and_value(table, expected):
    assert any(expected in line for line in problems({"search": {"metric": "score"}, **table})), problems(
        {"search": {"metric": "score"}, **table}
    )


def test_a_condition_may_rest_on_the_value_that_holds_where_its_parameter_is_not_searched():
    """Layers are 3 where kind is a, and from 5 where it is b."""
    layers = {"low": 5, "high": 9, "default": 5, "when": {"kind": "b"}}
    space = {**KIND, "layers": layers, "rate": {**ON_RATE, "when": {"layers": 3}}}
    assert set(read({"search": {"metric": "score"}, "space": space}).first_point) == {"kind", "rate"}


def test_a_combination_that_a_condition_keeps_from_happening_is_no_problem():
    """Adaptive cannot be on for one layer."""
    adaptive, layers = {"choices": [False, True]}, {"low": 1, "high": 3}
    table = {"search": {"metric": "score"}, "space": {"adaptive": adaptive, "layers": layers}}
    expected = "my.toml: space: at adaptive = True, layers = 1: adaptive: must be off for one layer, got True"
    assert problems(table) == (expected,)
    table["space"]["adaptive"] = {**adaptive, "when": {"layers": [2, 3]}}
    assert set(read(table).domains) == {"adaptive", "layers"}


def test_corners_hold_every_end_in_every_setting_that_decides_on_it():
    space = read(conditional())
    corners = [space.complete(point) for point in space.corners(["rate"])]
    assert {(each["kind"], each["rate"]) for each in corners} == {
        ("a", 0.001), ("a", 0.1), ("b", 0.2), ("b", 1.0), ("c", 0.2), ("c", 1.0),
    }  # fmt: skip
    assert len(corners) == 6
    slack = {(each["layers"], each["slack"]) for each in map(space.complete, space.corners(["slack"]))}
    assert slack == {(3, 0.0), (3, 0.5), (2, 0.0), (2, 0.5), (1, 0.0), (5, 0.0), (9, 0.0)}


# Priors.


@pytest.mark.parametrize(
    ("key", "domain", "expected"),
    [
        ("rate", {"low": 0.0, "high": 0.5, "prior": {"center": 0.1, "width": 0.3}}, Prior(0.2, 0.3)),
        ("rate", {"low": 1e-4, "high": 1, "log": True, "prior": {"center": 0.01, "width": 1}}, Prior(0.5, 1.0)),
        # Each of the values 1 to 4 has a quarter of the unit interval.
        ("layers", {"low": 1, "high": 4, "prior": {"center": 2, "width": 0.1}}, Prior(0.375, 0.1)),
        ("layers", {"low": 1, "high": 7, "step": 2, "prior": {"center": 7, "width": 0.1}}, Prior(0.875, 0.1)),
        ("layers", {"low": 1, "high": 4, "log": True, "prior": {"center": 3, "width": 0.1}}, Prior(log(6) / log(9), 0.1)),
        ("kind", {"choices": ["a", "b", "c"], "prior": [1, 2, 5.0]}, (0.125, 0.25, 0.625)),
        ("kind", {"choices": ["a", "b", "c"]}, None),
    ],
)  # fmt: skip
def test_a_prior_is_kept_in_the_unit_interval_of_its_domain(key, domain, expected):
    space = read_space(
        {"search": {"metric": "score"}, "space": {key: domain}},
        source=Path("my.toml"), defaults=DEFAULTS, check=lambda values: [], metrics=["score"],
    )  # fmt: skip
    prior = space.dimensions[key].prior
    if isinstance(expected, Prior):
        assert (prior.mean, prior.deviation) == pytest.approx((expected.mean, expected.deviation))
    else:
        assert prior == expected


@pytest.mark.parametrize(
    ("domain", "expected"),
    [
        ({"rate": {**ON_RATE, "prior": 0.01}}, "space.rate.prior: must be a table with center and width, got 0.01"),
        ({"rate": {**ON_RATE, "prior": {"center": 0.01}}}, "space.rate.prior: must be a table with center and width"),
        ({"rate": {**ON_RATE, "prior": {"center": 0.2, "width": 0.1}}}, "space.rate.prior.center: must be from 0.001 to 0.1, got 0.2"),
        ({"rate": {**ON_RATE, "prior": {"center": 0.2, "width": 0}}}, "space.rate.prior.width: must be above 0 and at most 1, the whole range, got 0"),
        ({"kind": {"choices": ["a", "b"], "prior": [1]}}, "space.kind.prior: must be a list of 2 weights above 0, one for each choice, got [1]"),
        ({"kind": {"choices": ["a", "b"], "prior": [1, 0]}}, "space.kind.prior: must be a list of 2 weights above 0, one for each choice, got [1, 0]"),
        ({"kind": {"choices": ["a", "b"], "prior": {"center": 1, "width": 1}}}, "space.kind.prior: must be a list of 2 weights above 0"),
    ],
)  # fmt: skip
def test_what_is_wrong_with_a_prior_is_said_with_file_key_rule_and_value(domain, expected):
    assert any(expected in line for line in problems({"search": {"metric": "score"}, "space": domain}))


# Points to try first.


def test_points_come_behind_the_first_trial_and_take_its_values_where_they_give_none():
    points = [{"rate": 0.05}, {"kind": "b"}, {"kind": "c", "rate": 1}, {"kind": "b", "layers": 3, "slack": 0.5}]
    first, *rest = read(conditional(points=points)).points
    assert first == {"kind": "a", 'rate[kind="a"]': 0.01, "slack": 0.0}
    assert rest == [
        {"kind": "a", 'rate[kind="a"]': 0.05, "slack": 0.0},
        {"kind": "b", 'rate[kind="b"|"c"]': 0.5, "layers": 5},
        {"kind": "c", 'rate[kind="b"|"c"]': 1.0, "slack": 0.0},
        {"kind": "b", 'rate[kind="b"|"c"]': 0.5, "layers": 3, "slack": 0.5},
    ]


@pytest.mark.parametrize(
    ("points", "expected"),
    [
        ([{"rat": 0.1}], "points[1].rat: must be a searched parameter (did you mean 'rate'?), got 0.1"),
        ([{"rate": 0.05}, {"adaptive": True}], "points[2].adaptive: must be a searched parameter, got True"),
        ([{"rate": 0.5}], "points[1].rate: must be from 0.001 to 0.1 where kind = 'a', got 0.5"),
        ([{"kind": "z"}], "points[1].kind: must be one of 'a', 'b', 'c', got 'z'"),
        ([{"layers": 3}], "points[1].layers: must not be given, since it is not searched where kind = 'a', got 3"),
        ([{"kind": "b", "layers": 3.0}], "points[1].layers: must be from 1 to 9 where kind = 'b', got 3.0"),
        ([{"kind": "a"}], "points[1]: must differ from the first trial, got {'kind': 'a'}"),
        ([{"kind": "b"}, {"kind": "b", "layers": 5}], "points[2]: must differ from points[1], got"),
        ([{}], "points[1]: must differ from the first trial, got {}"),
        ([3], "points: must be an array of tables, each under [[points]], got [3]"),
    ],
)
def test_what_is_wrong_with_a_point_is_said_with_file_key_rule_and_value(points, expected):
    assert any(expected in line for line in problems(conditional(points=points))), problems(conditional(points=points))


def test_a_point_is_judged_as_a_complete_parameter_set():
    """Two layers are sound at the ends of both domains; what no end shows is found at the point itself."""

    def no_middle(values):
        middle = values["layers"] == 5 and values["rate"] > 0.01
        return [finding("rate", "must be at most 0.01 for five layers", values["rate"])] if middle else []

    space = {"rate": {"low": 0.001, "high": 0.1}, "layers": {"low": 1, "high": 9}}
    table = {"search": {"metric": "score"}, "space": space, "points": [{"layers": 5, "rate": 0.05}]}
    with pytest.raises(InvalidInput) as error:
        read_space(table, source=Path("my.toml"), defaults=DEFAULTS, check=no_middle, metrics=["score"])
    assert error.value.problems == ("my.toml: points[1]: rate: must be at most 0.01 for five layers, got 0.05",)


def test_a_wrong_default_does_not_hide_what_else_is_wrong():
    found = problems({"search": {"metric": "score"}, "space": {"rate": {"low": 0.1, "high": 2.0, "default": [3]}}})
    assert found == (
        "my.toml: space.rate: must contain the default, or name another one as `default`, got [3]",
        "my.toml: space.rate: at 2.0: rate: must be in (0, 1], got 2.0",
    )


def test_all_points_must_find_room_among_the_trials():
    table = conditional(points=[{"rate": 0.05}, {"kind": "b"}])
    table["search"]["num_trials"] = 2
    expected = "my.toml: search.num_trials: must be at least 3, for the first trial and those of [[points]], got 2"
    assert problems(table) == (expected,)


def test_all_problems_of_points_conditions_and_priors_are_reported_at_once():
    found = problems(
        conditional(
            points=[{"kind": "z"}, {"rat": 1}],
            adaptive={"choices": [False, True], "when": {"kin": 1}},
            layers={"when": {"kind": "b"}, "low": 1, "high": 9, "default": 5, "prior": {"center": 0, "width": 0}},
        )
    )
    assert [line.split(": ")[1] for line in found] == [
        "space.adaptive.when.kin", "space.layers.prior.center", "space.layers.prior.width", "points[1].kind",
        "points[2].rat",
    ]  # fmt: skip


def test_a_value_of_the_base_is_judged_beside_what_the_first_trial_searches():
    """One layer in the base would forbid adaptive; but layers are searched, from two."""
    space = {"layers": {"low": 2, "high": 4}}
    assert read({"search": {"metric": "score"}, "base": {"adaptive": True}, "space": space}).parameters["adaptive"]


def test_a_prior_beside_a_searcher_that_ignores_it_is_an_error():
    rate = {"low": 0.001, "high": 0.1, "default": 0.01, "prior": {"center": 0.01, "width": 0.2}}
    table = {"search": {"metric": "score", "searcher": "tpe"}, "space": {"rate": rate}}
    assert problems(table) == (
        "my.toml: space.rate.prior: must not be given, since it has no effect while searcher is tpe, got 'a prior'",
    )
