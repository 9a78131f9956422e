"""What a search leaves whose driver, workers, second node and MLflow server are killed at random moments."""

import sys
from pathlib import Path

import pytest
from chaos import can_isolate, isolated
from mlflow import MlflowClient
from record_checks import check_record, check_twins

from fer_search.journal import FILE_NAME, read_journal, reproducible

SCRIPT = Path(__file__).with_name("chaos.py")
NAME = "chaos"


pytestmark = [
    pytest.mark.cluster,
    pytest.mark.skipif(not can_isolate(), reason="network namespaces (unshare and ip, as root) are not to be had"),
]


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


def test_a_search_under_random_kills_loses_nothing_and_computes_the_same(tmp_path):
    assert run_chaos(tmp_path / "c", minutes=15, kills=6, trials=4, epochs=6) >= 4
    check_record(tmp_path / "c" / NAME, MlflowClient(f"sqlite:///{tmp_path}/c/mlflow.db"))
    check_twins(tmp_path / "c" / NAME)


@pytest.mark.long
def test_more_than_twenty_kills_lose_nothing_and_change_no_curve(tmp_path):
    assert run_chaos(tmp_path / "c", minutes=20, kills=24, trials=12, seed=1) >= 20
    check_record(tmp_path / "c" / NAME, MlflowClient(f"sqlite:///{tmp_path}/c/mlflow.db"))
    check_twins(tmp_path / "c" / NAME)


@pytest.mark.long
def test_one_trial_at_a_time_a_killed_search_is_the_search_that_was_not_killed(tmp_path):
    run_chaos(tmp_path / "whole", minutes=5, kills=0, trials=6, max_concurrent=1)
    assert run_chaos(tmp_path / "c", minutes=7, kills=10, trials=6, max_concurrent=1, seed=2) >= 6
    check_record(tmp_path / "c" / NAME, MlflowClient(f"sqlite:///{tmp_path}/c/mlflow.db"))
    assert curves(tmp_path / "c") == curves(tmp_path / "whole")
