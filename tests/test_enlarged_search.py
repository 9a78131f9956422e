"""What changes when a search is given more trials, and which later trials a race knows nothing of."""

import json
from pathlib import Path

import pytest

from fer_search.errors import InvalidInput
from fer_search.journal import TrialRecord
from fer_search.runs import RACE, SETTINGS, write_json
from fer_search.searches import enlarge
from fer_search.spaces import check_space
from fer_search.standings import missing_entrants

TABLE = {"search": {"num_trials": 5}, "space": {"max_lr": {"low": 1e-4, "high": 1e-2, "log": True}}}


def test_an_enlarged_search_is_the_one_that_its_settings_describe():
    space = check_space(TABLE, source=Path("s.toml"))
    settings, larger = enlarge({"space": TABLE, "data": {}}, space, 20)
    assert json.loads(json.dumps(settings)) == {"space": {**TABLE, "search": {"num_trials": 20}}, "data": {}}
    assert larger == check_space(settings["space"], source=Path("s.toml"))


@pytest.mark.parametrize("num_trials", [1, 5])
def test_a_search_is_not_enlarged_to_what_it_has(num_trials):
    space = check_space(TABLE, source=Path("s.toml"))
    with pytest.raises(InvalidInput, match=f"trials: must be more than the 5 that the search has, got {num_trials}"):
        enlarge({"space": TABLE}, space, num_trials)


@pytest.mark.parametrize(
    ("raced", "missed"),
    [({0, 2, 3}, []), ({0, 3}, [2]), ({0}, [2, 3, 1]), ({0, 1}, [2, 3]), (None, [])],
)
def test_trials_that_did_better_than_an_entrant_and_were_not_in_the_race_are_named(tmp_path, raced, missed):
    space = check_space(TABLE, source=Path("s.toml"))
    scores = {0: 0.1, 1: 0.2, 2: 0.9, 3: 0.5}
    trials = [
        TrialRecord(number, {}, 0.0, state="COMPLETE", epochs=[{"val_accuracy": value}])
        for number, value in scores.items()
    ]
    trials.append(TrialRecord(4, {}, 0.0, state="PRUNED", epochs=[{"val_accuracy": 0.99}]))
    if raced is not None:
        write_json(tmp_path / RACE / SETTINGS, {"kind": RACE, "entrants": sorted(raced)})
    assert missing_entrants(tmp_path, space, trials) == missed


@pytest.mark.parametrize(("raced", "missed"), [({0, 2, 3}, []), ({0, 2, 1}, [3]), ({0}, [2])])
def test_of_a_search_for_a_front_what_would_race_now_and_did_not_is_named(tmp_path, raced, missed):
    """Trials 2 and 3 are the front; 1 costs as much as 3 and is worse."""
    table = {"search": {"cost": "flops"}, "space": {"fusion_width": {"choices": [0, 64, 96]}}}
    space = check_space(table, source=Path("s.toml"))
    trials = [
        TrialRecord(number, {}, 0.0, state="COMPLETE", epochs=[{"val_accuracy": value}], cost=cost)
        for number, (value, cost) in enumerate([(0.1, 9.0), (0.2, 2.0), (0.9, 5.0), (0.5, 2.0)])
    ]
    write_json(tmp_path / RACE / SETTINGS, {"kind": RACE, "entrants": sorted(raced)})
    assert missing_entrants(tmp_path, space, trials) == missed
