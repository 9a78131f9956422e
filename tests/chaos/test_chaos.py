"""What a search leaves whose driver, workers, second node and MLflow server are killed at random moments."""

import sys
from pathlib import Path

import pytest
from chaos import can_isolate, isolated
from mlflow import MlflowClient

from fer_search.data.fer2013 import load_faces
from fer_search.journal import FILE_NAME, read_events, read_journal, reproducible
from fer_search.races import objective_on
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.tuning.connection import Resources

SCRIPT = Path(__file__).with_name("chaos.py")
NAME = "chaos"


pytestmark = pytest.mark.skipif(
    not can_isolate(), reason="network namespaces (unshare and ip, as root) are not to be had"
)


def run_chaos(directory, *, minutes, **settings):
    """Run the search and return how often it was really killed."""
    directory.mkdir()
    options = [word for name, value in settings.items() for word in (f"--{name.replace('_', '-')}", str(value))]
    done = isolated([sys.executable, SCRIPT, directory, *options], seconds=60 * minutes)
    kills = (directory / "kills.txt").read_text() if settings["kills"] else ""
    logs = [f"{log}:\n{log.read_text()[-2000:]}" for log in sorted(directory.glob("*.log"))]
    assert done.returncode == 0, "\n".join([done.stderr[-2000:], kills, *logs])
    return len(kills.splitlines())


def curves(directory):
    """Return each trial's number, parameters and state, and its metrics without those that measure the machine."""
    return [
        (trial.number, trial.parameters, trial.state, trial.passed, [reproducible(each) for each in trial.epochs])
        for trial in read_journal(directory / NAME / FILE_NAME)
    ]


def check_record(directory):
    """Every trial ended, and journal and MLflow hold every epoch of every trial exactly once."""
    trials = read_journal(directory / NAME / FILE_NAME)
    assert all(trial.ended for trial in trials)
    assert "FAIL" not in {trial.state for trial in trials}
    events = [event for event, _ in read_events(directory / NAME / FILE_NAME) if event["event"] == "epoch_ended"]
    client = MlflowClient(f"sqlite:///{directory}/mlflow.db")
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert len(runs) == len(trials) + 1
    assert "RUNNING" not in {run.info.status for run in runs}
    by_name = {run.info.run_name: run for run in runs}
    assert by_name[NAME].info.status == "FINISHED"
    for trial in trials:
        reached = list(range(1, len(trial.epochs) + 1))
        assert [event["epoch"] for event in events if event["trial"] == trial.number] == reached
        run = by_name[f"trial {trial.number:05d}"]
        assert run.info.status == ("FINISHED" if trial.state == "COMPLETE" else "KILLED")
        for name in trial.epochs[0]:
            history = sorted((m.step, m.value) for m in client.get_metric_history(run.info.run_id, name))
            assert history == [(epoch, metrics[name]) for epoch, metrics in enumerate(trial.epochs, start=1)]


def check_twins(directory):
    """The curve of every trial is, bit for bit, that of the same training without interruption in one process."""
    faces = load_faces("synthetic")
    for trial in read_journal(directory / NAME / FILE_NAME):
        splits = split_for(faces, Recipe.build(trial.parameters))
        twin = objective_on(splits, Resources(cpus=1))(trial.parameters, None)
        for metrics, report in zip(trial.epochs, twin, strict=False):
            assert reproducible(metrics) == reproducible(report.metrics)


def test_a_search_under_random_kills_loses_nothing_and_computes_the_same(tmp_path):
    assert run_chaos(tmp_path / "c", minutes=4, kills=6, trials=4, epochs=6) >= 4
    check_record(tmp_path / "c")
    check_twins(tmp_path / "c")


@pytest.mark.long
def test_more_than_twenty_kills_lose_nothing_and_change_no_curve(tmp_path):
    assert run_chaos(tmp_path / "c", minutes=9, kills=24, trials=12, seed=1) >= 20
    check_record(tmp_path / "c")
    check_twins(tmp_path / "c")


@pytest.mark.long
def test_one_trial_at_a_time_a_killed_search_is_the_search_that_was_not_killed(tmp_path):
    run_chaos(tmp_path / "whole", minutes=5, kills=0, trials=6, max_concurrent=1)
    assert run_chaos(tmp_path / "c", minutes=7, kills=10, trials=6, max_concurrent=1, seed=2) >= 6
    check_record(tmp_path / "c")
    assert curves(tmp_path / "c") == curves(tmp_path / "whole")
