"""`fer-search status` on runs that are finished, running, killed and short of a server."""

import json
import subprocess
import sys
import time

import pytest

from fer_search.journal import FILE_NAME, Journal, read_events
from fer_search.runs import locked, write_json
from fer_search.status import read_status
from fer_search.tracking_state import (
    RunDescription,
    TrackingState,
    mark_ended,
    write_description,
    write_tracking_state,
)


@pytest.fixture
def run(tmp_path):
    """A search of five trials on disk, four of which were started, as a killed process leaves it."""
    directory = tmp_path / "runs" / "s"
    directory.mkdir(parents=True)
    write_json(directory / "settings.json", {"kind": "search", "num_trials": 5})
    write_description(directory, RunDescription("http://127.0.0.1:9", "id", "search", "s", {}, {}))
    journal = Journal(directory / FILE_NAME)
    for number, num_epochs in enumerate((9, 3, 1, 2)):
        journal.trial_started(number, {"epochs": 9})
        for epoch in range(1, num_epochs + 1):
            journal.epoch_ended(number, epoch, {"val_accuracy": 0.5})
    journal.trial_ended(0, "COMPLETE")
    journal.trial_paused(1)
    journal.trial_retried(3, "the worker died")
    journal.trial_ended(2, "FAIL", "RuntimeError: broken (see errors/trial_00002.txt)")
    return directory


def test_a_killed_search_says_what_ran_what_failed_and_what_going_on_would_do(run, fer_search):
    done = fer_search("status", "s")
    assert done.returncode == 0
    for text in (
        "killed", "4 of 5", "1 COMPLETE", "1 PAUSED", "1 FAIL", "1 RUNNING", "interrupted", "2 of 9",
        "tried again after: the worker died", "RuntimeError: broken", "23 events",
        "fer-search resume s: 2 trials go on from their last epochs or wait at a rung, 1 are still to be started",
        "fer-search sync s",
    ):  # fmt: skip
        assert text in done.stdout, text


def test_a_running_search_is_known_by_its_lock_and_looking_does_not_disturb_it(run):
    with locked(run):
        (status,) = read_status(run)
        assert (status.state, status.next_step) == ("running", "nothing to resume: it is running")
        (status,) = read_status(run)
        assert status.state == "running"
    (status,) = read_status(run)
    assert status.state == "killed"


def test_what_was_sent_is_not_counted(run):
    events = [offset for _, offset in read_events(run / FILE_NAME)]
    write_tracking_state(run, TrackingState(events[-3], "[Errno 111] Connection refused"))
    (status,) = read_status(run)
    assert (status.unsent, status.tracking_error) == (2, "[Errno 111] Connection refused")


@pytest.mark.parametrize(("status", "state"), [("FINISHED", "finished"), ("KILLED", "stopped"), ("FAILED", "failed")])
def test_how_the_last_process_ended_is_told(run, status, state):
    mark_ended(run, status)
    assert read_status(run)[0].state == state


def test_a_search_in_another_process_is_seen_while_it_trains(tmp_path, fer_search, with_stores):
    with_stores(tmp_path / "runs")
    settings = ["epochs=60", "fit_fraction=0.1", "backbone=test_resnet", "pretrained=false", "fusion_width=0"]
    command = [sys.executable, "-m", "fer_search", "train", "--name", "t", *settings]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.DEVNULL)
    journal, deadline = tmp_path / "runs/t" / FILE_NAME, time.monotonic() + 60
    while sum(event["event"] == "epoch_ended" for event, _ in read_events(journal)) < 2:
        assert time.monotonic() < deadline
        time.sleep(0.05)
    (seen,) = json.loads(fer_search("status", "t", "--json").stdout)
    process.kill()
    process.wait()
    assert (seen["kind"], seen["state"], seen["trials"]) == ("train", "running", {"RUNNING": 1})
    assert 2 <= seen["running"]["0"] < 60
    (seen,) = json.loads(fer_search("status", "t", "--json").stdout)
    assert seen["state"] == "killed"
    assert seen["next_step"] == "the same command goes on from the last epoch of each training"


def test_a_name_without_a_run_is_a_clear_error(fer_search):
    done = fer_search("status", "nothing")
    assert (done.returncode, "name: must be that of a search or a training" in done.stderr) == (2, True)
