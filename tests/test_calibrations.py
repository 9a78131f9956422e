"""The calibration of rungs on real parts: one small run, and what it left."""

import itertools
import json
import tomllib
from pathlib import Path

import numpy as np
import pytest
from mlflow import MlflowClient
from scipy import stats
from typer.testing import CliRunner

from fer_search import workflow
from fer_search.calibrations import CURVES, calibrate, collect_curves, draw_points
from fer_search.cli import app
from fer_search.data.fer2013 import load_faces
from fer_search.errors import InvalidInput
from fer_search.files import read_toml
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal, read_journal
from fer_search.recipe import Recipe
from fer_search.record import describe_data, package_versions, split_for
from fer_search.recorded_curves import RecordedCurves
from fer_search.runs import write_json
from fer_search.spaces import check_space
from fer_search.tracking_uri import local_store
from fer_search.tuning.exhaustive import ExhaustiveState, Training

SPACE = """
[search]
first_rung = 1
[base]
backbone = "test_resnet"
pretrained = false
stem_stride = 2
drop_path = 0.0
epochs = 4
batch_size = 16
accumulation = 1
ema_decay = 0.9
fusion_width = 0
fit_fraction = 0.05
[space.max_lr]
low = 0.0005
high = 0.05
log = true
[space.dropout]
low = 0.0
high = 0.5
"""


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory, with_stores):
    """A calibration of four configurations."""
    folder = tmp_path_factory.mktemp("calibration")
    (folder / "space.toml").write_text(SPACE)
    done = CliRunner().invoke(app, command(with_stores(folder / "runs")))
    assert done.exit_code == 0, done.output
    return folder / "runs"


def command(runs):
    space = str(runs.parent / "space.toml")
    return ["calibrate", space, "--name", "c", "--runs", str(runs), "--configurations", "4", "--max-concurrent", "1"]


def test_every_configuration_is_trained_to_the_end_once_in_each_schedule(runs):
    trainings = read_journal(runs / "c" / JOURNAL)
    assert [(t.point["configuration"], t.point["schedule"]) for t in trainings] == [
        (number, schedule) for number in range(4) for schedule in ("onecycle", "annealed")
    ]
    assert {(t.state, len(t.epochs)) for t in trainings} == {("COMPLETE", 4)}
    for one, other in zip(trainings[::2], trainings[1::2], strict=True):
        assert {key for key in one.parameters if one.parameters[key] != other.parameters[key]} == {"restarts"}
        assert (one.parameters["restarts"], other.parameters["restarts"]) == ([], [1, 3])
    defaults = check_space(read_toml(runs.parent / "space.toml"), source=Path("space.toml"))
    assert trainings[0].parameters == defaults.complete(defaults.first_point)
    assert len({t.parameters["max_lr"] for t in trainings}) == 4


def test_the_curves_on_disk_are_those_of_the_journal(runs):
    found = RecordedCurves.read(runs / "c" / CURVES)
    for training in read_journal(runs / "c" / JOURNAL):
        number, schedule = training.point["configuration"], training.point["schedule"]
        assert all(training.parameters[key] == value for key, value in found.points[number].items())
        for metric in ("val_accuracy", "val_accuracy_ema"):
            expected = [metrics[metric] for metrics in training.epochs]
            assert found.curves[schedule][metric][number].tolist() == expected


def test_what_is_told_is_scipys_tau_of_these_curves_with_the_end_of_the_plain_one_cycle(runs):
    told = json.loads(CliRunner().invoke(app, [*command(runs), "--json"]).stdout)
    curves = RecordedCurves.read(runs / "c" / CURVES).curves
    results = curves["onecycle"]["val_accuracy"][:, -1]
    assert len(told["agreements"]) == 2 * 2 * 3
    for row in told["agreements"]:
        early = curves[row["schedule"]][row["metric"]][:, row["epoch"] - 1]
        expected = stats.kendalltau(early, results).statistic
        assert row["tau"] == pytest.approx(0.0 if np.isnan(expected) else expected)
    assert told["verdict"]["best"]["epoch"] in (1, 3)


def test_mlflow_holds_the_calibration_with_a_child_per_training(runs):
    client = MlflowClient(local_store(runs))
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    assert {run.info.status for run in found} == {"FINISHED"}
    assert sorted(run.data.tags["kind"] for run in found) == ["calibrate"] + ["trial"] * 8


def test_the_same_command_prints_the_tables_again_without_training(runs):
    before = (runs / "c" / JOURNAL).read_text()
    shown = CliRunner().invoke(app, command(runs))
    assert shown.exit_code == 0, shown.output
    for text in ("tau", "the best goes on", "1*", "3*", "of the rungs,"):
        assert text in shown.output
    assert (runs / "c" / JOURNAL).read_text() == before


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"num_configurations": 3}, "command line: configurations: must be at least 4: fewer have no order"),
        ({"num_configurations": 5}, "num_configurations: must be as in the calibration there"),
        ({"overrides": {"max_lr": 0.1}}, "base.max_lr: must not be fixed here and searched"),
        ({"overrides": {"dropout": 0.1, "epochs": 1}}, "dropout: must not be fixed here"),
        ({"overrides": {"epochs": 1}}, "search.first_rung: must be"),
        ({"overrides": {"restarts": [1]}}, "base.restarts: must be empty, since calibrate trains without"),
        ({"overrides": {"fit_fraction": 0.02}}, "pct_start: must cover more than one of the shortest cycle's"),
    ],
)
def test_what_cannot_be_calibrated_is_an_error_before_any_work(runs, changes, message):
    arguments = {"name": "c", "num_configurations": 4, "runs": runs, **changes}
    with pytest.raises(InvalidInput) as error:
        calibrate(runs.parent / "space.toml", **arguments)
    assert any(message in line for line in error.value.problems), error.value.problems


def test_points_cover_the_space_evenly():
    domains = {"max_lr": {"low": 1e-4, "high": 1e-1, "log": True}, "dropout": {"low": 0.0, "high": 0.8}}
    points = draw_points(check_space({"base": {"epochs": 4}, "space": domains}, source=Path("s.toml")), 17)
    assert len(points) == 17
    rates, dropouts = ([point[key] for point in points[1:]] for key in ("max_lr", "dropout"))
    assert np.histogram(np.log10(rates), bins=4, range=(-4, -1))[0].tolist() == [4] * 4
    assert np.histogram(dropouts, bins=4, range=(0, 0.8))[0].tolist() == [4] * 4


def test_a_training_that_fails_is_not_run_again_and_the_others_are(tmp_path):
    trainings = [Training({"x": number}, {"n": number}) for number in range(3)]

    def state():
        return ExhaustiveState(trainings, Journal(tmp_path / JOURNAL), metric="score", horizon=2)

    first = state()
    assert [first.next_trial().number, first.next_trial().number] == [0, 1]
    first.fail(0, "diverged: at once")
    assert first.report(1, 1, {"score": 0.5})
    first.interrupt(1)
    again = state()
    assert not again.finished
    assert [again.next_trial().number, again.next_trial().number, again.next_trial()] == [1, 2, None]
    assert not again.report(1, 2, {"score": 0.6})
    assert again.report(2, 1, {"score": 0.6})
    assert not again.report(2, 2, {"score": 0.7})
    assert again.finished
    assert [(t.state, len(t.epochs)) for t in read_journal(tmp_path / JOURNAL)] == [
        ("FAIL", 0), ("COMPLETE", 2), ("COMPLETE", 2),
    ]  # fmt: skip


def test_a_diverged_configuration_is_kept_to_where_it_came_and_a_broken_one_is_left_out(tmp_path):
    journal = Journal(tmp_path / JOURNAL)
    points = [{"x": number} for number in range(6)]
    for number, (configuration, schedule) in enumerate(itertools.product(range(6), ("onecycle", "annealed"))):
        journal.trial_started(number, {}, point={"configuration": configuration, "schedule": schedule})
        journal.epoch_ended(number, 1, {"score": float(number)})
        if number == 3:
            journal.trial_ended(number, "FAIL", "diverged: the loss of step 9 is nan")
        elif number == 4:
            journal.trial_ended(number, "FAIL", "MemoryError")
        else:
            journal.epoch_ended(number, 2, {"score": 100.0 + number, "other": 0.0})
            journal.trial_ended(number, "COMPLETE")
    found = collect_curves(tmp_path, {}, points, horizon=2, about="faces")
    assert found.points == [{"x": number} for number in (0, 1, 3, 4, 5)]
    assert list(found.curves["onecycle"]) == ["score"]
    np.testing.assert_array_equal(
        found.curves["onecycle"]["score"], [[0, 100], [2, 102], [6, 106], [8, 108], [10, 110]]
    )
    np.testing.assert_array_equal(found.curves["annealed"]["score"][1], [3, np.nan])


def test_retrain_and_race_train_one_onecycle_whatever_the_search_did(cluster, tmp_path, with_stores):
    """On the journal of a search with restarts, written here: its only trial is its winner."""
    with_stores(tmp_path)
    table = tomllib.loads(SPACE)
    table["base"] |= {"restarts": [1, 3], "weights_seed": 7}
    space = check_space(table, source=Path("space.toml"))
    faces = load_faces("synthetic")
    settings = {
        "kind": "search", "search_id": "s", "space_file": "space.toml", "space": table, "parameters": space.parameters,
        "resources": {"cpus": 1, "gpus": 0.0, "max_concurrent": 1}, "address": None,
        "tracking_uri": local_store(tmp_path),
        "data": describe_data("synthetic", faces, split_for(faces, Recipe.build(space.parameters))),
        "versions": package_versions(),
    }  # fmt: skip
    write_json(tmp_path / "s" / "settings.json", settings)
    journal = Journal(tmp_path / "s" / JOURNAL)
    journal.trial_started(0, space.complete(space.first_point), point=space.first_point)
    for epoch in range(1, 5):
        journal.epoch_ended(0, epoch, {"val_accuracy": 0.5})
    journal.trial_ended(0, "COMPLETE")
    assert journal.trials[0].parameters["restarts"] == [1, 3]
    workflow.race("s", top=1, max_seeds=3, runs=tmp_path)
    raced = [trial.parameters for trial in read_journal(tmp_path / "s" / "race" / JOURNAL)]
    assert [(each["restarts"], each["weights_seed"]) for each in raced] == [([], 0)] * 3
    recipe = workflow.retrain("s", epochs=2, runs=tmp_path)["recipe"]
    assert (recipe["epochs"], recipe["restarts"], recipe["weights_seed"]) == (2, [], 7)
