"""A search that learns from an earlier one: which trials it takes, what its searcher sees, and that after a kill."""

from pathlib import Path

import numpy as np
import pytest
from optuna.trial import TrialState
from test_state import new_state, play, story
from toy import toy_space

from fer_search.journal import FILE_NAME, Journal, TrialRecord, read_journal
from fer_search.tuning.observations import DIVERGED
from fer_search.tuning.past_trials import locate, past_trials
from fer_search.tuning.space_file import read_space
from fer_search.tuning.state import SearchState

DEFAULTS = {"kind": "a", "x": 5.0, "y": 1, "epochs": 9}


def space_of(domains, **base):
    table = {"search": {"metric": "score"}, "base": base, "space": domains}
    return read_space(table, source=Path("s.toml"), defaults=DEFAULTS, check=lambda values: [], metrics=["score"])


@pytest.mark.parametrize(
    ("changes", "point"),
    [
        ({}, {"x": 5.0, "kind": "a"}),
        ({"x": 0.0}, {"x": 0.0, "kind": "a"}),
        ({"x": -0.1}, None),
        ({"y": 2}, None),  # fixed to 1
        ({"epochs": 8}, None),
        ({"kind": "b"}, {"x": 5.0, "kind": "b", "y": 1}),
        ({"kind": "b", "y": 3}, {"x": 5.0, "kind": "b", "y": 3}),
        ({"kind": "b", "y": 4}, None),
        ({"kind": "c"}, None),
    ],
)
def test_a_trial_lies_in_a_space_where_what_is_fixed_agrees_and_what_is_searched_is_in_its_domain(changes, point):
    domains = {
        "x": {"low": 0, "high": 10},
        "kind": {"choices": ["a", "b"]},
        "y": {"low": 1, "high": 3, "when": {"kind": "b"}},
    }
    assert locate({**DEFAULTS, **changes}, space_of(domains)) == point


def test_what_a_narrower_space_learns_of_a_wider_one_and_the_reverse(tmp_path):
    narrow = space_of({"x": {"low": 4.0, "high": 6.0}}, y=2)
    wide = space_of({"x": {"low": 0.0, "high": 9.0}, "y": {"low": 0, "high": 5}, "kind": {"choices": ["a", "b"]}})
    inside, outside = {**DEFAULTS, "x": 5.5, "y": 2}, {**DEFAULTS, "x": 7.0, "y": 2}
    assert (locate(inside, narrow), locate(outside, narrow)) == ({"x": 5.5}, None)
    assert locate(outside, wide) == {"x": 7.0, "y": 2, "kind": "a"}


def test_a_trial_tells_something_with_an_epoch_or_where_its_parameters_made_it_diverge():
    epochs = [{"score": 0.5}]
    states = {
        0: ("COMPLETE", "", epochs), 1: ("PRUNED", "", epochs), 2: ("PAUSED", "", epochs), 3: ("RUNNING", "", epochs),
        4: ("RUNNING", "", []), 5: ("FAIL", "diverged: nan", []), 6: ("FAIL", "the disk is on fire", epochs),
    }  # fmt: skip
    trials = [
        TrialRecord(number, {"epochs": 9, "x": 1.0}, 0.0, state=state, message=message, epochs=each)
        for number, (state, message, each) in states.items()
    ]
    taken = {trial.number: (trial.state, trial.point) for trial in past_trials(trials, toy_space(5))}
    at = {"x": 1.0}
    assert taken == {0: ("COMPLETE", at), 1: ("PRUNED", at), 2: ("PRUNED", at), 3: ("PRUNED", at), 5: ("FAIL", at)}


@pytest.fixture(scope="module")
def past(tmp_path_factory):
    directory = tmp_path_factory.mktemp("first")
    play(new_state(directory, toy_space(30, first_rung=1, seed=3, searcher="random")))
    return past_trials(read_journal(directory / FILE_NAME), toy_space(9))


def warm_state(directory, past, **settings):
    return SearchState(toy_space(9, first_rung=1, **settings), Journal(directory / FILE_NAME), past=past)


def test_optuna_sees_the_past_trials_before_the_first_one_and_rungs_and_journal_do_not(tmp_path, past):
    state = warm_state(tmp_path, past)
    assert [trial.params for trial in state.study.trials] == [trial.point for trial in past]
    for trial, record in zip(state.study.trials, past, strict=True):
        assert trial.state == TrialState[record.state]
        assert trial.intermediate_values == {i: each["score"] for i, each in enumerate(record.epochs, start=1)}
        assert trial.user_attrs == ({DIVERGED: True} if record.diverged else {})
    first = state.next_trial()
    assert (first.number, first.point) == (0, {"x": 5.0})
    assert not state.report(0, 1, {"score": 2.0})  # alone at its rung, whatever came before
    assert state.study.trials[len(past)].intermediate_values == {1: 2.0}
    assert list(state.journal.trials) == [0]


@pytest.mark.parametrize("searcher", ["curves", "tpe"])
def test_a_warm_search_cut_off_after_any_event_goes_on_as_if_it_had_not_been(tmp_path, past, searcher):
    (tmp_path / "whole").mkdir()
    play(warm_state(tmp_path / "whole", past, searcher=searcher))
    whole = story(tmp_path / "whole")
    assert {event["trial"] for event in whole} == set(range(9))
    lines = (tmp_path / "whole" / FILE_NAME).read_text().splitlines(keepends=True)
    for length in range(0, len(lines), 2):
        cut = tmp_path / f"cut{length}"
        cut.mkdir()
        (cut / FILE_NAME).write_text("".join(lines[:length]))
        play(warm_state(cut, past, searcher=searcher))
        assert story(cut) == whole, f"cut after event {length}"


@pytest.mark.parametrize("searcher", ["curves", "tpe"])
def test_a_warm_search_begins_where_the_earlier_one_found_the_best(tmp_path, past, searcher):
    """The best is at x = 2; a cold search's first trials are spread over the 20 units of the space."""
    distances = {}
    for kind, known in (("warm", past), ("cold", [])):
        found = []
        for seed in range(6):
            (directory := tmp_path / f"{kind}{seed}").mkdir()
            play(warm_state(directory, known, searcher=searcher, seed=seed))
            found += [abs(trial.point["x"] - 2) for trial in read_journal(directory / FILE_NAME)[1:4]]
        distances[kind] = np.median(found)
    assert distances["warm"] < 0.5 * distances["cold"]
