"""The search's decisions, played through without Ray: by hand, and cut off after every single event."""

import json
import math
from contextlib import suppress

import numpy as np
import pytest
from optuna.trial import TrialState
from ray.tune.schedulers import AsyncHyperBandScheduler
from toy import ToyObjective, toy_size, toy_space

from fer_search.journal import FILE_NAME, Journal, read_journal
from fer_search.tuning.limit import Budget, Limit
from fer_search.tuning.searcher import StateSearcher
from fer_search.tuning.state import SearchState


def new_state(directory, space, verdict=None, measure=None):
    return SearchState(space, Journal(directory / FILE_NAME), verdict=verdict, measure=measure)


def play(state):
    """Run the toy objective, one trial at a time, to the end of the search."""
    while not state.finished:
        trial = state.next_trial()
        scores = curve(trial.parameters)
        for epoch in range(max(1, len(trial.epochs)), len(scores) + 1):
            score = scores[epoch - 1]
            if score is None:
                state.fail(trial.number, "diverged")
                break
            if not state.report(trial.number, epoch, {"score": score}):
                break
    state.close()


def curve(parameters):
    """Return the toy's scores, with None in the place of the epoch at which it diverges."""
    scores = []
    with suppress(FloatingPointError):
        scores.extend(report.metrics["score"] for report in ToyObjective()(parameters, None))
    scores = [score if math.isfinite(score) else None for score in scores]
    return scores if len(scores) == parameters["epochs"] else [*scores, None]


def story(directory):
    """Return the journal's events without their times."""
    lines = (directory / FILE_NAME).read_text().splitlines()
    return [{key: value for key, value in json.loads(line).items() if key != "time"} for line in lines]


@pytest.mark.parametrize(
    ("scheduler", "searcher"),
    [("promotion", "curves"), ("stopping", "curves"), ("promotion", "tpe"), ("stopping", "random")],
)
def test_a_search_cut_off_after_any_event_goes_on_as_if_it_had_not_been(tmp_path, scheduler, searcher):
    space = toy_space(14, scheduler=scheduler, searcher=searcher, first_rung=1)
    (tmp_path / "whole").mkdir()
    play(new_state(tmp_path / "whole", space))
    whole = story(tmp_path / "whole")
    lines = (tmp_path / "whole" / FILE_NAME).read_text().splitlines(keepends=True)
    assert len(lines) > 60
    for length in range(len(lines)):
        cut = tmp_path / f"cut{length}"
        cut.mkdir()
        (cut / FILE_NAME).write_text("".join(lines[:length]) + '{"event": "ep')
        play(new_state(cut, space))
        assert story(cut) == whole, f"cut after event {length}"


@pytest.mark.parametrize(("scheduler", "searcher"), [("promotion", "curves"), ("stopping", "random")])
def test_a_search_for_a_front_that_is_cut_off_goes_on_as_it_was_and_measures_nothing_anew(
    tmp_path, scheduler, searcher
):
    space = toy_space(14, scheduler=scheduler, searcher=searcher, first_rung=1, cost="size")
    (tmp_path / "whole").mkdir()
    play(new_state(tmp_path / "whole", space, measure=toy_size))
    whole = story(tmp_path / "whole")
    for trial in read_journal(tmp_path / "whole" / FILE_NAME):
        assert trial.cost == toy_size(trial.parameters)
    lines = (tmp_path / "whole" / FILE_NAME).read_text().splitlines(keepends=True)
    assert len(lines) > 60
    for length in range(len(lines)):
        cut = tmp_path / f"cut{length}"
        cut.mkdir()
        (cut / FILE_NAME).write_text("".join(lines[:length]))
        measured = []

        def measure(parameters, measured=measured):
            measured.append(parameters["x"])
            return toy_size(parameters)

        play(new_state(cut, space, measure=measure))
        assert story(cut) == whole, f"cut after event {length}"
        started = [event["parameters"]["x"] for event in whole if event["event"] == "trial_started"]
        known = sum(event["event"] == "trial_started" for event in whole[:length])
        assert measured == [x for x in dict.fromkeys(started[known:]) if x not in started[:known]]


def hopeless(trial):
    last = trial.epochs[-1]["score"]
    return f"only {last}" if len(trial.epochs) >= 2 and last < 0.695 else None


@pytest.mark.parametrize("scheduler", ["promotion", "stopping", "none"])
def test_a_hopeless_trial_ends_at_once_whatever_the_scheduler_also_after_a_kill(tmp_path, scheduler):
    space = toy_space(12, scheduler=scheduler, searcher="random", **({} if scheduler == "none" else {"first_rung": 2}))
    (tmp_path / "whole").mkdir()
    play(new_state(tmp_path / "whole", space, hopeless))
    ended = {trial.number: trial for trial in read_journal(tmp_path / "whole" / FILE_NAME) if "only" in trial.message}
    assert len(ended) >= 3
    for trial in ended.values():
        assert (trial.state, len(trial.epochs)) == ("PRUNED", 2)
        assert trial.epochs[1]["score"] < 0.695
    lines = (tmp_path / "whole" / FILE_NAME).read_text().splitlines(keepends=True)
    for length in range(len(lines)):
        cut = tmp_path / f"cut{length}"
        cut.mkdir()
        (cut / FILE_NAME).write_text("".join(lines[:length]))
        play(new_state(cut, space, hopeless))
        assert story(cut) == story(tmp_path / "whole"), f"cut after event {length}"


@pytest.mark.parametrize("scheduler", ["promotion", "stopping"])
@pytest.mark.parametrize("epochs_between", [1, 2, 5])
def test_a_search_whose_time_is_up_again_and_again_ends_as_one_that_had_enough(tmp_path, scheduler, epochs_between):
    space = toy_space(14, scheduler=scheduler, first_rung=1)
    (tmp_path / "whole").mkdir()
    play(new_state(tmp_path / "whole", space))
    while True:
        state = new_state(tmp_path, space)
        if state.finished:
            state.close()
            break
        play_for(state, epochs_between)
        assert "RUNNING" not in {trial.state for trial in read_journal(tmp_path / FILE_NAME)}
    assert [
        event for event in story(tmp_path) if event["event"] in ("epoch_ended", "trial_started", "trial_ended")
    ] == [
        event
        for event in story(tmp_path / "whole")
        if event["event"] in ("epoch_ended", "trial_started", "trial_ended")
    ]


def play_for(state, num_epochs):
    """Run the toy objective for so many epochs, then let the trial wait."""
    while not state.finished:
        trial = state.next_trial()
        scores = curve(trial.parameters)
        for epoch in range(max(1, len(trial.epochs)), len(scores) + 1):
            if scores[epoch - 1] is None:
                state.fail(trial.number, "diverged")
                break
            known = epoch <= len(trial.epochs)
            goes_on = state.report(trial.number, epoch, {"score": scores[epoch - 1]})
            num_epochs -= not known
            if not goes_on:
                break
            if num_epochs <= 0:
                state.interrupt(trial.number)
                return
        if num_epochs <= 0:
            return


def test_the_default_comes_first_and_every_trial_has_a_complete_parameter_set(tmp_path):
    state = new_state(tmp_path, toy_space(3))
    assert state.next_trial().parameters == {"epochs": 9, "x": 5.0}
    second = state.next_trial()
    assert (second.number, set(second.parameters)) == (1, {"epochs", "x"})


def test_no_more_trials_run_at_once_than_allowed(tmp_path):
    state = new_state(tmp_path, toy_space(9))
    searcher = StateSearcher(state, places=lambda state: 2, limit=Limit(state.journal, Budget(), gpus=0))
    assert searcher.suggest("a") == {"trial": 0, "parameters": {"epochs": 9, "x": 5.0}, "places": 1}
    assert searcher.suggest("b")["trial"] == 1
    assert searcher.suggest("c") is None
    state.fail(0, "broken")
    assert searcher.suggest("d")["trial"] == 2
    state.widen(1)
    assert (state.num_running, state.num_places) == (1, 1)
    again = searcher.suggest("e")
    assert (again["trial"], again["places"]) == (1, 2)
    assert (state.num_running, state.num_places) == (2, 3)
    assert searcher.suggest("f") is None
    assert new_state(tmp_path, toy_space(9)).journal.trials[1].places == 2


def test_optuna_is_told_what_really_happened(tmp_path):
    state = new_state(tmp_path, toy_space(5, first_rung=3, eta=3))
    for _ in range(5):
        state.next_trial()
    for number, score in enumerate((0.9, 0.2, 0.1)):
        goes_on = [state.report(number, epoch, {"score": score}) for epoch in (1, 2, 3)]
        assert goes_on == [True, True, False]
    state.report(3, 1, {"score": 0.5})
    state.fail(3, "diverged: the loss is nan")
    assert {trial.state for trial in state.study.trials[:3]} == {TrialState.RUNNING}
    assert state.next_trial().number == 0  # the best third of three
    assert state.report(0, 3, {"score": 0.9})
    assert [state.report(0, epoch, {"score": 0.9}) for epoch in range(4, 10)] == [True] * 5 + [False]
    state.close()
    complete, pruned, _, diverged, running = state.study.trials
    assert (complete.state, complete.value, len(complete.intermediate_values)) == (TrialState.COMPLETE, 0.9, 9)
    assert (pruned.state, pruned.last_step, pruned.intermediate_values[3]) == (TrialState.PRUNED, 3, 0.2)
    assert (diverged.state, diverged.intermediate_values) == (TrialState.FAIL, {1: 0.5})
    assert running.state == TrialState.RUNNING


def test_a_promotion_takes_the_best_of_the_highest_rung_that_has_one_in_its_best_third(tmp_path):
    state = new_state(tmp_path, toy_space(20, first_rung=1, eta=3))
    for _ in range(7):
        state.next_trial()
    assert [state.report(number, 1, {"score": score}) for number, score in enumerate((0.1, 0.5, 0.3))] == [False] * 3
    promoted = state.next_trial()  # the best of three, before anything new
    assert (promoted.number, promoted.state, promoted.passed) == (1, "RUNNING", 1)
    assert state.report(3, 1, {"score": 0.7})  # the best of four goes on without a pause
    assert not state.report(4, 1, {"score": 0.2})
    assert state.report(5, 1, {"score": 0.6})  # the second of six
    assert state.next_trial().number == 7  # there is none left to promote
    for number, score in ((1, 0.9), (3, 0.8), (5, 0.7)):
        assert state.report(number, 2, {"score": score})
        assert not state.report(number, 3, {"score": score})
    assert state.next_trial().number == 1  # of three at the second rung


def test_when_all_have_started_the_best_go_on_until_three_are_complete(tmp_path):
    space = toy_space(5, first_rung=3, eta=3)
    state = new_state(tmp_path, space)
    while not state.finished:
        trial = state.next_trial()
        epoch = max(1, len(trial.epochs))
        while state.report(trial.number, epoch, {"score": 0.1 * trial.number + 0.01 * epoch}):
            epoch += 1
    state.close()
    states = {trial.number: trial.state for trial in read_journal(tmp_path / FILE_NAME)}
    assert sum(state == "COMPLETE" for state in states.values()) == 3
    assert states[4] == "COMPLETE"
    assert [state for state in states.values() if state != "COMPLETE"] == ["PRUNED"] * 2


@pytest.mark.parametrize(("eta", "first_rung"), [(3, 1), (4, 1), (2, 2), (3, 3)])
def test_the_stopping_rule_decides_as_rays_own_asha(tmp_path, eta, first_rung):
    rng = np.random.default_rng(0)
    space = toy_space(600, scheduler="stopping", eta=eta, first_rung=first_rung, searcher="random")
    state = new_state(tmp_path, space)
    theirs = AsyncHyperBandScheduler(
        time_attr="training_iteration",
        metric="score",
        mode="max",
        max_t=9,
        grace_period=first_rung,
        reduction_factor=eta,
    )

    class RayTrial:
        def __init__(self, number):
            self.trial_id = str(number)

    live, stopped = {}, 0
    while not state.finished:
        if len(live) < 8 and (trial := state.next_trial()) is not None:
            live[trial.number] = RayTrial(trial.number)
            theirs.on_trial_add(None, live[trial.number])
            continue
        number = int(rng.choice(list(live)))
        epoch = len(state.journal.trials[number].epochs) + 1
        score = float(rng.random())
        goes_on = state.report(number, epoch, {"score": score})
        decision = theirs.on_trial_result(None, live[number], {"training_iteration": epoch, "score": score})
        assert goes_on == (decision == "CONTINUE")
        stopped += epoch < 9 and not goes_on
        if not goes_on:
            del live[number]
    assert stopped > 50


def test_a_failed_trial_no_longer_sets_the_bar(tmp_path):
    state = new_state(tmp_path, toy_space(9, scheduler="stopping", first_rung=1, eta=2))
    for _ in range(3):
        state.next_trial()
    assert state.report(0, 1, {"score": 0.9})
    state.fail(0, "diverged")
    assert state.report(1, 1, {"score": 0.5})


def test_a_rung_that_was_passed_is_not_judged_again_when_its_report_is_repeated(tmp_path):
    state = new_state(tmp_path, toy_space(9, scheduler="stopping", first_rung=1, eta=2))
    state.next_trial(), state.next_trial()
    assert state.report(0, 1, {"score": 0.5})
    assert state.report(1, 1, {"score": 0.9})
    assert state.report(0, 1, {"score": 0.5})
    assert len(read_journal(tmp_path / FILE_NAME)[0].epochs) == 1
