"""Whole searches on the toy objective with a real Ray."""

import random
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from subprocess import DEVNULL
from threading import Event, Thread

import pytest
from toy import search_toy

from fer_search.checkpoints import CHECKPOINTS
from fer_search.errors import InvalidInput
from fer_search.journal import FILE_NAME, read_events, read_journal
from fer_search.tuning.connection import Resources
from fer_search.tuning.limit import Budget
from fer_search.tuning.retention import most_checkpoints
from fer_search.tuning.select import leaderboard, select_winner

TOY = Path(__file__).with_name("toy.py")


@pytest.fixture(scope="module")
def finished(cluster, tmp_path_factory):
    directory = tmp_path_factory.mktemp("search")
    search_toy(directory, 16, resources=Resources())
    return directory


def test_every_trial_ends_in_the_state_that_its_curve_says(finished):
    trials = read_journal(finished / FILE_NAME)
    assert [trial.number for trial in trials] == list(range(16))
    for trial in trials:
        x = trial.parameters["x"]
        if x > 8 or x < -9:
            assert (trial.state, len(trial.epochs)) == ("FAIL", 1)
            assert trial.message.startswith("diverged: ")
        else:
            assert trial.state == ("COMPLETE" if len(trial.epochs) == 9 else "PRUNED")
    assert {trial.state for trial in trials} >= {"COMPLETE", "PRUNED"}
    assert all(len(trial.epochs) == 3 for trial in trials if trial.state == "PRUNED")


def test_the_journal_holds_every_epoch_once_and_in_order(finished):
    events = [event for event, _ in read_events(finished / FILE_NAME)]
    for trial in read_journal(finished / FILE_NAME):
        epochs = [e["epoch"] for e in events if e["event"] == "epoch_ended" and e["trial"] == trial.number]
        assert epochs == list(range(1, len(trial.epochs) + 1))


def test_the_winner_is_the_best_of_those_that_reached_the_horizon(finished):
    trials = read_journal(finished / FILE_NAME)
    complete = [trial for trial in trials if trial.state == "COMPLETE"]
    winner = select_winner(trials, metric="score")
    assert abs(winner.parameters["x"] - 2) == min(abs(trial.parameters["x"] - 2) for trial in complete)
    ranks = [trial.state for trial in leaderboard(trials, metric="score")]
    assert ranks == sorted(ranks, key=["COMPLETE", "PRUNED", "FAIL"].index)


def kept(directory):
    return {int(path.name[-5:]): [each.name for each in path.iterdir()] for path in (directory / CHECKPOINTS).iterdir()}


def last_of_the_best_five(directory):
    complete = [trial for trial in read_journal(directory / FILE_NAME) if trial.state == "COMPLETE"]
    best = sorted(complete, key=lambda trial: -trial.epochs[-1]["score"])[:5]
    return {trial.number: ["epoch_00009"] for trial in best}


def test_a_complete_search_keeps_the_last_checkpoint_of_its_best_trials_and_no_other(finished):
    assert kept(finished) == last_of_the_best_five(finished)


def test_a_search_that_gets_more_trials_keeps_within_what_it_announced(finished, tmp_path):
    directory = tmp_path / "more"
    shutil.copytree(finished, directory, ignore=shutil.ignore_patterns("ray"))
    counts, ended = [], Event()

    def watch():
        while not ended.wait(0.01):
            counts.append(sum(1 for _ in (directory / CHECKPOINTS).glob("trial_*/*epoch_*")))

    watcher = Thread(target=watch)
    watcher.start()
    try:
        assert search_toy(directory, 24, resources=Resources(max_concurrent=1))
    finally:
        ended.set()
        watcher.join()
    trials = read_journal(directory / FILE_NAME)
    assert sum(trial.state == "COMPLETE" for trial in trials) > 5
    assert kept(directory) == last_of_the_best_five(directory)
    assert max(counts) <= most_checkpoints(running=1, waiting=24, finalists=5, trials=24)


def test_the_first_trial_is_the_default(finished):
    assert read_journal(finished / FILE_NAME)[0].parameters == {"epochs": 9, "x": 5.0}


def test_asking_for_more_than_any_node_has_is_refused_at_once(tmp_path, cluster):
    with pytest.raises(InvalidInput) as error:
        search_toy(tmp_path, 2, resources=Resources(cpus=10_000, gpus=64))
    assert [line.split(",")[0] for line in error.value.problems] == [
        "resources: cpus per trial: must be at most 2",
        "resources: gpus per trial: must be at most 0",
    ]
    assert list(tmp_path.iterdir()) == []


def toy_command(directory, num_trials):
    return [sys.executable, str(TOY), str(directory), str(num_trials)]


def story(directory):
    return [(t.number, t.parameters, t.state, t.epochs) for t in read_journal(directory / FILE_NAME)]


@pytest.mark.parametrize("num_kills", [4, pytest.param(20, marks=pytest.mark.long)])
def test_a_search_killed_at_random_moments_ends_as_if_it_had_not_been(tmp_path, cluster, num_kills):
    """kill -9 of the driver: suggestions, curves, rungs and verdicts equal the uninterrupted search's."""
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    search_toy(whole, 16, resources=Resources(max_concurrent=1))
    command = [*toy_command(killed, 16), cluster]
    rng = random.Random(0)
    journal = killed / FILE_NAME
    for _ in range(num_kills):
        before = [event for event, _ in read_events(journal)]
        num_epochs = sum(event["event"] == "epoch_ended" for event in before)
        process = subprocess.Popen(command, stdout=DEVNULL, stderr=DEVNULL)
        wait_for_epochs(journal, num_epochs + rng.randint(1, 3), process)
        time.sleep(rng.uniform(0, 0.05))
        process.send_signal(signal.SIGKILL)
        process.wait()
        assert [event for event, _ in read_events(journal)][: len(before)] == before
    assert not all(trial.ended for trial in read_journal(journal))
    subprocess.run(command, check=True, stdout=DEVNULL, stderr=DEVNULL, timeout=180)
    assert story(killed) == story(whole)
    assert all(trial.ended for trial in read_journal(journal))


def test_a_trial_whose_checkpoints_are_damaged_starts_again_and_ends_the_same(tmp_path, cluster):
    command = [*toy_command(tmp_path / "killed", 3), cluster]
    journal = tmp_path / "killed" / FILE_NAME
    process = subprocess.Popen(command, stdout=DEVNULL, stderr=DEVNULL)
    wait_for_epochs(journal, 5, process)
    process.send_signal(signal.SIGKILL)
    process.wait()
    states = list((tmp_path / "killed" / CHECKPOINTS).glob("trial_*/epoch_*/state.json"))
    assert states
    for state in states:
        state.write_text("7")
    assert search_toy(tmp_path / "killed", 3, resources=Resources(max_concurrent=1))
    trials = read_journal(journal)
    for trial in trials:
        height = 1 - (trial.parameters["x"] - 2) ** 2 / 100
        assert trial.epochs == [{"score": height * (1 - 0.5**epoch)} for epoch in range(1, len(trial.epochs) + 1)]
    assert (trials[0].state, len(trials[0].epochs)) == ("COMPLETE", 9)
    assert all(trial.ended for trial in trials)


def test_a_trial_that_breaks_is_tried_again_then_given_up_with_its_traceback_kept(tmp_path, cluster):
    assert search_toy(tmp_path, 1, broken=True, resources=Resources())
    (trial,) = read_journal(tmp_path / FILE_NAME)
    assert (trial.state, len(trial.epochs)) == ("FAIL", 1)
    assert "RuntimeError: the disk is on fire" in trial.message
    assert (tmp_path / "errors" / "trial_00000.txt").read_text().count("on fire") >= 3


def test_when_time_is_up_every_trial_waits_and_a_later_call_goes_on(tmp_path, cluster, an_hour_goes_by):
    with an_hour_goes_by(tmp_path / FILE_NAME, num_epochs=2):
        assert not search_toy(tmp_path, 4, pause=0.2, resources=Resources(), budget=Budget(hours=1))
    trials = read_journal(tmp_path / FILE_NAME)
    assert "PAUSED" in {trial.state for trial in trials} <= {"PAUSED", "COMPLETE", "FAIL"}
    assert (tmp_path / CHECKPOINTS).exists()
    assert search_toy(tmp_path, 4, resources=Resources())
    trials = read_journal(tmp_path / FILE_NAME)
    assert len(trials) == 4
    assert all(trial.ended for trial in trials)


def wait_for_epochs(journal, count, process):
    deadline = time.monotonic() + 120
    while sum(event["event"] == "epoch_ended" for event, _ in read_events(journal)) < count:
        assert process.poll() is None, "the search ended before it could be killed"
        assert time.monotonic() < deadline
        time.sleep(0.02)
