"""Importances of functions whose effects are known, from trials that were stopped as a search stops them."""

import warnings
from pathlib import Path

import numpy as np
import optuna
import pytest
from scipy.stats import spearmanr

from fer_search.errors import InvalidInput
from fer_search.journal import TrialRecord
from fer_search.tuning import importance
from fer_search.tuning.importance import parameter_importances, rank_scores
from fer_search.tuning.space_file import read_space

RANGE = {"low": 0.0, "high": 1.0}


@pytest.fixture
def few_forests(monkeypatch):
    monkeypatch.setattr(importance, "NUM_FORESTS", 40)


def space_of(domains):
    defaults = {"epochs": 3, "a": 0.5, "b": 0.5, "c": 0.5, "rate": 0.01, "size": 8, "kind": "plain", "depth": 1}
    table = {"search": {"metric": "score"}, "space": domains}
    return read_space(table, source=Path("x"), defaults=defaults, check=lambda values: [], metrics=["score"])


def record(number, scores, state="PRUNED", message="", **values):
    epochs = [{"score": score} for score in scores]
    return TrialRecord(number, values, 0.0, point=values, state=state, message=message, epochs=epochs)


def sampled(space, seed, num_trials):
    """Return trials without results at random points of the space, as Optuna draws them."""
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=seed))
    trials = []
    for number in range(num_trials):
        point = space.suggest(study.ask())
        trials.append(TrialRecord(number, space.complete(point), 0.0, point=point))
    return trials


def stopped_early(trials, effect, seed, noise=(0.8, 0.4, 0.1)):
    """Give the trials noisy curves of standardized `effect`, each stopped unless it is in the best third so far."""
    generator = np.random.default_rng(seed)
    truth = np.array([effect(trial.parameters) for trial in trials])
    truth = (truth - truth.mean()) / truth.std()
    rungs = [[], [], []]
    for trial, value in zip(trials, truth, strict=True):
        for rung, deviation in zip(rungs, noise, strict=True):
            seen = value + deviation * generator.normal()
            trial.epochs.append({"score": float(seen)})
            trial.state = "COMPLETE" if len(trial.epochs) == 3 else "PRUNED"
            passes = not rung or seen >= np.percentile(rung, 200 / 3)
            rung.append(seen)
            if not passes:
                break
    return truth


def test_a_trial_that_went_on_is_placed_by_how_it_then_did_among_those_that_did_too():
    trials = [
        record(0, [0.1, 0.9], "COMPLETE"),  # passed for want of rivals, and did best later
        record(1, [0.3, 0.5], "COMPLETE"),
        record(2, [0.2]),
        record(3, [0.4]),  # stopped, though better than those that went on: it keeps its place
    ]
    assert rank_scores(trials, metric="score") == {0: 0.625, 1: 0.125, 2: 0.375, 3: 0.875}


def test_trials_that_went_beyond_a_rung_on_merit_are_above_those_that_stopped_there():
    curves = [[0.1], [0.2], [0.3], [0.4, 0.9], [0.5, 0.7, 0.8], [0.6, 0.6], [0.45, 0.8, 0.5]]
    scores = rank_scores([record(number, curve) for number, curve in enumerate(curves)], metric="score")
    assert sorted(scores, key=scores.get) == [0, 1, 2, 5, 6, 4, 3]


def test_a_running_trial_counts_with_what_it_has_and_one_without_an_epoch_or_that_broke_does_not():
    trials = [
        record(0, [0.1, 0.2], "COMPLETE"),
        record(1, [0.9], "RUNNING"),
        record(2, [], "RUNNING"),
        record(3, [0.5], "PAUSED"),
        record(4, [0.7], "FAIL", "the disk is full (see trial_00004.txt)"),
    ]
    assert rank_scores(trials, metric="score") == {0: 1 / 6, 3: 0.5, 1: 5 / 6}


def test_diverged_trials_share_the_last_place_however_well_they_began():
    trials = [
        record(0, [0.9, 0.95], "FAIL", "diverged: loss is nan"),
        record(1, [], "FAIL", "diverged: loss is nan"),
        record(2, [0.1]),
        record(3, [0.2]),
    ]
    assert rank_scores(trials, metric="score") == {0: 0.25, 1: 0.25, 2: 0.625, 3: 0.875}


def test_equal_results_share_their_places():
    trials = [record(0, [0.5, 0.6]), record(1, [0.5, 0.6]), record(2, [0.5, 0.7]), record(3, [0.5])]
    scores = rank_scores(trials, metric="score")
    assert scores == {0: 0.5, 1: 0.5, 2: 0.5, 3: 0.5}
    assert rank_scores([], metric="score") == {}


def test_known_importances_are_found_from_trials_that_were_mostly_stopped(few_forests):
    space = space_of({"a": RANGE, "b": RANGE, "c": RANGE})
    trials = sampled(space, 0, 90)
    stopped_early(trials, lambda p: 10 * p["a"] + 4 * p["b"], 0)
    assert sum(trial.state == "COMPLETE" for trial in trials) < 20
    found = parameter_importances(trials, space)
    a, b, c = found.parameters
    assert (a.parameter, b.parameter, c.parameter) == ("a", "b", "c")
    assert a.low > b.high  # of the function's variance 86 % is a's, 14 % is b's
    assert b.low > 0
    assert c.low < 0 < c.high < 0.05
    assert 0.4 < a.importance < 0.86
    assert a.best_range[0] > 0.5
    assert c.best_range[0] < 0.4 < 0.6 < c.best_range[1]
    assert (found.num_trials, a.num_trials) == (90, 90)


def test_stopped_trials_make_the_estimate_steadier_than_complete_ones_alone(few_forests):
    space = space_of({"a": RANGE, "b": RANGE, "c": RANGE})
    naive, ours, likeness = [], [], []
    for seed in range(4):
        trials = sampled(space, seed, 60)
        truth = stopped_early(trials, lambda p: 10 * p["a"] + p["b"], seed)
        study = optuna.create_study(direction="maximize")
        for trial in trials:
            if trial.state == "COMPLETE":
                value = trial.epochs[-1]["score"]
                study.add_trial(optuna.trial.create_trial(params=trial.point, distributions=space.domains, value=value))
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            naive.append(optuna.importance.get_param_importances(study)["a"])
        found = parameter_importances(trials, space).parameters
        ours.append(next(each.importance for each in found if each.parameter == "a") / sum(e.importance for e in found))
        scores = rank_scores(trials, metric="score")
        likeness.append(spearmanr(list(scores.values()), truth)[0])
    assert min(ours) > 0.85  # a's share of the variance is 99 %
    assert min(naive) < 0.5
    assert min(likeness) > 0.7


def test_conditions_choices_whole_numbers_and_log_ranges_are_understood(few_forests):
    space = space_of(
        {
            "rate": {"low": 1e-4, "high": 1.0, "log": True},
            "kind": {"choices": ["plain", "deep", "wide"], "default": "plain"},
            "depth": {"low": 1, "high": 9, "when": {"kind": "deep"}},
            "size": {"choices": [8, 16, 32]},
            "c": RANGE,
        }
    )
    trials = sampled(space, 1, 150)

    def effect(p):
        bonus = (p["depth"] - 3) / 1.5 if p["kind"] == "deep" else 0.0
        return np.log10(p["rate"]) + bonus - 2 * (p["kind"] == "wide")

    stopped_early(trials, effect, 1, noise=(0.3, 0.2, 0.1))
    found = {each.parameter: each for each in parameter_importances(trials, space).parameters}
    assert all(found[name].low > 0 for name in ("rate", "kind", "depth"))
    assert all(found[name].low < 0 < found[name].high < 0.05 for name in ("size", "c"))
    assert found["depth"].num_trials == sum(trial.parameters["kind"] == "deep" for trial in trials) < 150
    low, high = found["rate"].best_range
    assert 1e-3 < low < high <= 1.0
    low, high = found["depth"].best_range
    assert isinstance(low, int)
    assert 3 <= low < high <= 9
    counts = found["kind"].best_choices
    assert sum(counts.values()) == 38
    assert next(iter(counts)) == "deep"
    assert counts["deep"] > counts.get("plain", 0) > counts.get("wide", 0)
    assert found["kind"].best_range is None
    assert found["size"].best_range == (8, 32)


def test_a_condition_keeps_its_effect_to_itself(few_forests):
    space = space_of({"kind": {"choices": ["plain", "deep"]}, "depth": {"low": 1, "high": 9, "when": {"kind": "deep"}}})
    trials = sampled(space, 2, 80)
    stopped_early(trials, lambda p: p["kind"] == "deep", 2)
    kind, depth = parameter_importances(trials, space).parameters
    assert (kind.parameter, depth.parameter) == ("kind", "depth")
    assert depth.low < 0 < depth.high < 0.05


def test_results_that_hang_on_nothing_are_said_to_be_unexplained(few_forests):
    space = space_of({"a": RANGE, "b": RANGE})
    trials = sampled(space, 3, 60)
    generator = np.random.default_rng(3)
    stopped_early(trials, lambda p: generator.normal(), 3)
    found = parameter_importances(trials, space)
    assert found.explained < 0.05
    assert all(each.low < 0 for each in found.parameters)


def test_the_same_trials_have_the_same_importances(few_forests):
    space = space_of({"a": RANGE})
    trials = sampled(space, 4, 25)
    stopped_early(trials, lambda p: p["a"], 4)
    assert parameter_importances(trials, space) == parameter_importances(trials, space)


def test_a_parameter_that_no_trial_searched_or_varied_has_no_importance(few_forests):
    space = space_of(
        {"a": RANGE, "kind": {"choices": ["plain", "deep"]}, "depth": {"low": 1, "high": 9, "when": {"kind": "deep"}}}
    )
    trials = [record(number, [number / 40], a=number / 40, kind="plain", depth=1) for number in range(40)]
    for trial in trials:
        trial.point = {"a": trial.parameters["a"], "kind": "plain"}
    found = {each.parameter: each for each in parameter_importances(trials, space).parameters}
    assert found["a"].low > 0.3
    assert (found["kind"].importance, found["kind"].low, found["kind"].high) == (0, 0, 0)
    assert found["kind"].best_choices == {"plain": 10}
    assert (found["depth"].importance, found["depth"].num_trials, found["depth"].best_range) == (0, 0, None)


def test_too_few_trials_and_equal_results_are_refused():
    space = space_of({"a": RANGE})
    trials = [record(number, [number], a=number / 19) for number in range(19)]
    with pytest.raises(InvalidInput, match=r"search: trials: must be at least 20 .* got 19"):
        parameter_importances([*trials, record(19, [], "RUNNING", a=1.0)], space)
    with pytest.raises(InvalidInput, match=r"search: trials: must differ in score for importances, got 0.5"):
        parameter_importances([record(number, [0.5], a=number / 30) for number in range(30)], space)
