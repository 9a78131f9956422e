"""The searcher and the scheduler driven in the order that Ray's controller drives them, without Ray."""

import sys
from types import SimpleNamespace

import numpy as np
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler
from toy import toy_space

from fer_search.tuning.scheduler import SuccessiveHalving
from fer_search.tuning.searcher import OptunaSearcher


def result(epoch, score, **more):
    return {"training_iteration": epoch, "score": score, **more}


def test_the_default_recipe_is_the_first_trial_and_every_suggestion_is_a_complete_recipe():
    searcher = OptunaSearcher(toy_space(3))
    assert searcher.suggest("a") == {"trial": 0, "parameters": {"epochs": 9, "x": 5.0}}
    second = searcher.suggest("b")
    assert second["trial"] == 1
    assert set(second["parameters"]) == {"epochs", "x"}


def test_optuna_is_told_what_really_happened():
    searcher = OptunaSearcher(toy_space(5))
    for trial in "abcde":
        searcher.suggest(trial)
        searcher.on_trial_result(trial, result(1, 0.1))
    searcher.on_trial_complete("a", result(9, 0.9))
    searcher.on_trial_complete("b", result(3, 0.3))
    searcher.on_trial_complete("c", result(2, -sys.float_info.max, diverged="the loss is nan"))
    searcher.on_trial_complete("d", error=True)
    complete, pruned, diverged, failed, running = searcher.study.trials
    assert (complete.state, complete.value, complete.intermediate_values) == (
        TrialState.COMPLETE,
        0.9,
        {1: 0.1, 9: 0.9},
    )
    assert (pruned.state, pruned.last_step, pruned.intermediate_values[3]) == (TrialState.PRUNED, 3, 0.3)
    assert (diverged.state, failed.state) == (TrialState.FAIL, TrialState.FAIL)
    assert running.state == TrialState.RUNNING


def test_a_restored_searcher_goes_on_as_if_nothing_had_happened(tmp_path):
    def play(searcher, first, last):
        suggestions = []
        for number in range(first, last):
            suggestion = searcher.suggest(f"t{number}")
            suggestions.append(suggestion)
            searcher.on_trial_complete(f"t{number}", result(9, -((suggestion["parameters"]["x"] - 2) ** 2)))
        return suggestions

    whole = play(OptunaSearcher(toy_space(30)), 0, 30)
    first = OptunaSearcher(toy_space(30))
    play(first, 0, 15)
    first.save(str(tmp_path / "state.pkl"))
    second = OptunaSearcher(toy_space(30))
    second.restore(str(tmp_path / "state.pkl"))
    assert play(second, 15, 30) == whole[15:]


@pytest.mark.parametrize(("eta", "first_rung"), [(3, 1), (4, 1), (2, 2), (3, 3)])
def test_the_stopping_rule_decides_as_rays_own_asha(eta, first_rung):
    rng = np.random.default_rng(0)
    searcher = OptunaSearcher(toy_space(10_000, eta=eta, first_rung=first_rung))
    ours = SuccessiveHalving(searcher)
    theirs = AsyncHyperBandScheduler(
        time_attr="training_iteration",
        metric="score",
        mode="max",
        max_t=9,
        grace_period=first_rung,
        reduction_factor=eta,
    )
    live, decisions, created = {}, 0, 0
    for _ in range(2_000):
        if len(live) < 8:
            name = f"t{created}"
            trial = SimpleNamespace(trial_id=name, config=searcher.suggest(name))
            theirs.on_trial_add(None, trial)
            live[name] = [trial, 0]
            created += 1
            continue
        name = str(rng.choice(list(live)))
        trial, epoch = live[name]
        epoch += 1
        report = result(epoch, float(rng.random()))
        if epoch == 9:
            searcher.on_trial_complete(name, report)
            theirs.on_trial_complete(None, trial, report)
            del live[name]
            continue
        decision = ours.on_trial_result(None, trial, report)
        assert decision == theirs.on_trial_result(None, trial, report)
        decisions += decision == "STOP"
        if decision == "STOP":
            searcher.on_trial_complete(name, report)
            del live[name]
        else:
            searcher.on_trial_result(name, report)
            live[name][1] = epoch
    assert decisions > 50


def test_rungs_survive_a_restart_with_the_searcher(tmp_path):
    def fill(searcher):
        scheduler = SuccessiveHalving(searcher)
        for number, score in enumerate((0.9, 0.8, 0.7, 0.6)):
            searcher.suggest(f"t{number}")
            searcher.on_trial_result(f"t{number}", result(3, score))
        return scheduler

    first = OptunaSearcher(toy_space(9))
    fill(first)
    first.save(str(tmp_path / "state.pkl"))
    second = OptunaSearcher(toy_space(9))
    scheduler = SuccessiveHalving(second)
    second.restore(str(tmp_path / "state.pkl"))
    weak = SimpleNamespace(trial_id="weak", config=second.suggest("weak"))
    assert scheduler.on_trial_result(None, weak, result(3, 0.65)) == "STOP"


def test_a_diverged_trial_leaves_no_trace_in_the_rungs():
    searcher = OptunaSearcher(toy_space(9))
    searcher.suggest("a")
    searcher.on_trial_result("a", result(3, 0.99))
    assert searcher.values_at(3, besides=7) == [0.99]
    searcher.on_trial_complete("a", result(4, -sys.float_info.max, diverged="nan"))
    assert searcher.values_at(3, besides=7) == []


def test_a_rung_that_was_passed_is_not_judged_again_when_it_is_repeated():
    searcher = OptunaSearcher(toy_space(9))
    scheduler = SuccessiveHalving(searcher)
    searcher.suggest("a")
    trial = SimpleNamespace(trial_id="a", config={"trial": 0})
    assert scheduler.on_trial_result(None, trial, result(3, 0.5)) == "CONTINUE"
    searcher.on_trial_result("a", result(3, 0.5))
    searcher.suggest("b")
    searcher.on_trial_result("b", result(3, 0.9))
    assert scheduler.on_trial_result(None, trial, result(3, 0.5)) == "CONTINUE"


def test_a_trial_that_the_searcher_does_not_know_is_let_through():
    searcher = OptunaSearcher(toy_space(9))
    searcher.on_trial_result("stranger", result(3, 0.5))
    searcher.on_trial_complete("stranger", result(9, 0.5))
    assert [trial.state for trial in searcher.study.trials] == [TrialState.WAITING]
