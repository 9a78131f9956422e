"""What is taken over from an earlier search, and when none of it may be."""

import json
from dataclasses import replace
from pathlib import Path

import pytest

from fer_search.errors import InvalidInput
from fer_search.journal import TrialRecord
from fer_search.searches import prepare
from fer_search.tradeoffs import measure_of
from fer_search.warm_start import take_over, taken_over

TABLE = """
[search]
num_trials = 4
searcher = "{searcher}"
metric = "{metric}"
{cost}

[base]
backbone = "test_resnet"
pretrained = false
stem_stride = 2
drop_path = 0.0
fusion_width = 0
epochs = {epochs}
validation_fraction = {fraction}
sam_rho = {rho}

[space.max_lr]
low = {low}
high = 0.05
default = 0.008
log = true

[space.cbam_attention]
choices = [false, true]
"""
DEFAULTS = {
    "searcher": "curves", "metric": "val_accuracy", "epochs": 9, "fraction": 0.1, "rho": 0.05, "low": 0.001,
    "cost": "",
}  # fmt: skip


def plan_of(directory, **changes):
    file = directory / "space.toml"
    file.write_text(TABLE.format(**{**DEFAULTS, **changes}))
    return prepare(file, data="synthetic", overrides=None, num_trials=None)


@pytest.fixture(scope="module")
def first(tmp_path_factory):
    """The directory, settings, space and trials of a search whose learning rates are 0.002, 0.004, ..., 0.01."""
    plan = plan_of(tmp_path_factory.mktemp("first"))
    epochs = [{"val_accuracy": 0.3, "val_macro_f1": 0.2}, {"val_accuracy": 0.4, "val_macro_f1": 0.3}]
    trials = [
        TrialRecord(number, {**plan.space.parameters, "max_lr": rate}, 0.0, state="PRUNED", epochs=epochs)
        for number, rate in enumerate((0.002, 0.004, 0.006, 0.008, 0.01))
    ]
    settings = {"search_id": "abc", "data": {"fingerprint": plan.faces.fingerprint()}}
    return Path("/runs/first"), settings, plan.space, trials


def test_trials_that_lie_in_the_new_space_are_kept_in_its_settings_and_read_back(first, tmp_path):
    plan = plan_of(tmp_path, low=0.005)
    kept = json.loads(json.dumps(take_over(*first, plan=plan)))
    assert (kept["search"], kept["search_id"], kept["left_out"]) == ("first", "abc", 2)
    assert [trial["number"] for trial in kept["trials"]] == [2, 3, 4]
    back = taken_over({"warm_start": kept}, plan.space)
    assert [(trial.point, trial.state) for trial in back] == [
        ({"max_lr": rate, "cbam_attention": False}, "PRUNED") for rate in (0.006, 0.008, 0.01)
    ]
    assert back[0].epochs == [{"val_accuracy": 0.3}, {"val_accuracy": 0.4}]
    assert back[0].parameters == first[3][2].parameters
    assert taken_over({}, plan.space) == []


def test_the_cost_that_the_new_search_looks_at_is_measured_or_taken_over_where_it_is_known(first, tmp_path):
    plan = plan_of(tmp_path, cost='cost = "parameters"')
    directory, settings, space, trials = first
    expected = measure_of("parameters")(plan.space.parameters)
    strange = [replace(trial, cost=7.0) for trial in trials]
    for there, found in ((space, expected), (replace(space, cost="flops"), expected), (plan.space, 7.0)):
        kept = take_over(directory, settings, there, strange, plan=plan)
        back = taken_over({"warm_start": json.loads(json.dumps(kept))}, plan.space)
        assert [trial.cost for trial in back] == [found] * 5


def test_every_reason_that_results_do_not_compare_is_told_at_once(first, tmp_path):
    with pytest.raises(InvalidInput) as error:
        take_over(*first, plan=plan_of(tmp_path, metric="val_macro_f1", epochs=6, fraction=0.2))
    told = "\n".join(error.value.problems)
    for key, new, old in (
        ("metric", "'val_macro_f1'", "'val_accuracy'"),
        ("horizon", 6, 9),
        ("validation_fraction", 0.2, 0.1),
    ):
        assert (
            f"/runs/first/settings.json: {key}: must be {new}, as in the search that is to learn from it, got {old}"
            in told
        )
    assert len(error.value.problems) == 3


def test_other_faces_are_refused(first, tmp_path):
    directory, settings, space, trials = first
    with pytest.raises(InvalidInput, match="fingerprint of the data: must be"):
        take_over(directory, {**settings, "data": {"fingerprint": "0"}}, space, trials, plan=plan_of(tmp_path))


def test_what_nobody_would_learn_from_is_refused(first, tmp_path):
    with pytest.raises(
        InvalidInput, match="warm-start: must not be given, since it has no effect while searcher is ran"
    ):
        take_over(*first, plan=plan_of(tmp_path, searcher="random"))
    with pytest.raises(InvalidInput, match=r"trials: must hold one with a result .*, got '5 trials'"):
        take_over(*first, plan=plan_of(tmp_path, rho=0.1))
