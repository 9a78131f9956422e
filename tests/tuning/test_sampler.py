"""The sampler on real studies: purity, every kind of parameter and trial state, and that it learns."""

import math

import numpy as np
import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.trial import TrialState, create_trial

from fer_search.tuning.encoding import Encoding
from fer_search.tuning.sampler import CurveSampler, expected_improvement, warp
from fer_search.tuning.space import Prior

LEVELS = (1, 3, 9)
SPACE = {
    "rate": FloatDistribution(1e-4, 1e-1, log=True),
    "width": FloatDistribution(0.0, 1.0),
    "step": FloatDistribution(0.0, 1.0, step=0.25),
    "layers": IntDistribution(1, 5),
    "units": IntDistribution(8, 512, log=True),
    "even": IntDistribution(2, 10, step=2),
    "kind": CategoricalDistribution(["a", "b", "c"]),
    "on": CategoricalDistribution([True, False]),
}
LINE = {"x": FloatDistribution(0.0, 1.0), "y": FloatDistribution(0.0, 1.0)}


def new_study(seed=0):
    return optuna.create_study(direction="maximize", sampler=CurveSampler(seed=seed, levels=LEVELS))


def curve(parameters, last):
    final = 1 - (parameters["x"] - 0.3) ** 2
    return {epoch: final - 0.5 * math.exp(-parameters["y"] * epoch) for epoch in range(1, last + 1)}


def past(parameters, last, state=TrialState.PRUNED, space=LINE, **attributes):
    values = curve(parameters, last)
    final = values[last] if state == TrialState.COMPLETE else None
    return create_trial(
        state=state,
        value=final,
        params=parameters,
        distributions=space,
        intermediate_values=values,
        user_attrs=attributes,
    )


def study_with(num_trials, seed=0, data_seed=1):
    study, rng = new_study(seed), np.random.default_rng(data_seed)
    for _ in range(num_trials):
        parameters = {"x": float(rng.random()), "y": float(rng.random())}
        last = int(rng.choice(LEVELS))
        study.add_trial(past(parameters, last, TrialState.COMPLETE if last == 9 else TrialState.PRUNED))
    return study


def test_proposals_lie_in_the_space_whatever_the_kinds_of_parameters():
    study = new_study()
    for number in range(40):
        trial = study.ask(SPACE)
        for name, distribution in SPACE.items():
            assert distribution._contains(distribution.to_internal_repr(trial.params[name]))
        trial.report(float(trial.params["width"]), 1)
        study.tell(trial, state=[TrialState.PRUNED, TrialState.FAIL][number % 5 == 0])
    assert {trial.params["kind"] for trial in study.trials} == {"a", "b", "c"}


def test_a_new_process_proposes_what_the_old_one_would_have():
    old = study_with(0)
    for _ in range(30):
        fresh = new_study()
        fresh.add_trials(old.trials)
        trial = old.ask(LINE)
        assert fresh.ask(LINE).params == trial.params
        for epoch, value in curve(trial.params, 3).items():
            trial.report(value, epoch)
        old.tell(trial, state=TrialState.PRUNED)


def test_seeds_propose_different_points():
    assert study_with(21, seed=0).ask(LINE).params != study_with(21, seed=1).ask(LINE).params


def test_it_proposes_where_the_final_values_are_best():
    proposals = [study_with(num_trials).ask(LINE).params["x"] for num_trials in range(40, 52) if num_trials % 4]
    assert np.median(np.abs(np.array(proposals) - 0.3)) < 0.1


def test_trials_that_run_are_believed_so_that_proposals_differ():
    study = study_with(40)
    proposals = [study.ask(LINE).params for _ in range(6)]
    assert len({(each["x"], each["y"]) for each in proposals}) == 6


@pytest.mark.parametrize("diverged", [True, False])
def test_a_diverged_trial_is_learned_as_the_worst_and_one_that_broke_not_at_all(diverged):
    before = study_with(31).ask(LINE).params
    study = study_with(31)
    rng = np.random.default_rng(0)
    for _ in range(8):
        near = {name: float(np.clip(value + 0.05 * rng.standard_normal(), 0, 1)) for name, value in before.items()}
        study.add_trial(past(near, 1, TrialState.FAIL, diverged=diverged))
    after = study.ask(LINE).params  # of trial 39, as `before` is of trial 31: neither is a Sobol point
    assert (math.dist(before.values(), after.values()) > 0.1) == diverged


def test_where_there_is_nothing_to_learn_from_points_are_drawn_from_the_priors():
    space = {"x": FloatDistribution(1e-4, 1.0, log=True), "kind": CategoricalDistribution(["a", "b", "c"])}
    priors = {"x": Prior(mean=0.75, deviation=0.1), "kind": (0.1, 0.1, 0.8)}
    sampler = CurveSampler(seed=0, levels=LEVELS, priors=priors)
    study = optuna.create_study(direction="maximize", sampler=sampler)
    drawn = [study.ask(space).params for _ in range(200)]  # none of them reports
    logarithms = np.log10([each["x"] for each in drawn])
    assert np.mean(logarithms) == pytest.approx(-1.0, abs=0.05)  # three quarters of four decades
    assert np.std(logarithms) == pytest.approx(0.4, abs=0.05)
    assert np.mean([each["kind"] == "c" for each in drawn]) == pytest.approx(0.8, abs=0.05)


def test_priors_do_not_keep_the_model_from_what_is_better():
    sampler = CurveSampler(seed=0, levels=LEVELS, priors={"x": Prior(mean=0.9, deviation=0.05)})
    found = []
    for num_trials in (41, 42, 43):
        study = study_with(num_trials)
        study.sampler = sampler
        found.append(study.ask(LINE).params["x"])
    assert np.median(np.abs(np.array(found) - 0.3)) < 0.1


def test_parameters_that_only_some_trials_have_are_proposed():
    study, rng = new_study(), np.random.default_rng(0)
    for number in range(20):
        parameters = {"x": float(rng.random()), "y": 0.5}
        if number % 2:
            parameters["extra"] = float(rng.random())
        space = {name: FloatDistribution(0.0, 1.0) for name in parameters}
        study.add_trial(past(parameters, 3, space=space))
    assert set(study.ask({**LINE, "extra": FloatDistribution(0.0, 1.0)}).params) == {"x", "y", "extra"}


def test_a_large_study_is_thinned_and_still_learned():
    study = study_with(1001)
    assert abs(study.ask(LINE).params["x"] - 0.3) < 0.2


@pytest.mark.parametrize("name", SPACE)
def test_a_value_of_the_domain_survives_encoding_and_decoding(name):
    encoding = Encoding({name: SPACE[name]})
    for unit in np.linspace(0, 1, 23):
        value = encoding.decode(np.array([unit]))[name]
        assert encoding.decode(encoding.units([{name: value}])[0])[name] == pytest.approx(value)


def test_all_integers_are_equally_likely():
    encoding = Encoding({"layers": IntDistribution(1, 5)})
    drawn = [encoding.decode(np.array([unit]))["layers"] for unit in (np.arange(1000) + 0.5) / 1000]
    assert np.bincount(drawn)[1:].tolist() == [200] * 5


def test_the_warp_keeps_the_order_and_squashes_the_lower_end():
    warped = warp(np.array([-1e6, 0.1, 0.5, 0.6, 0.7]))
    assert (np.diff(warped) > 0).all()
    assert warped[1] - warped[0] < 20 * (warped[4] - warped[1])
    assert np.isfinite(warp(np.ones(3))).all()


def test_the_expected_improvement_is_that_of_a_simulation():
    draws = 0.3 + 0.5 * np.random.default_rng(0).standard_normal(1_000_000)
    expected = np.maximum(draws - 0.6, 0).mean()
    assert expected_improvement(np.array([0.3]), np.array([0.5]), 0.6)[0] == pytest.approx(expected, rel=0.01)
