"""Workers that die or hang, storage that fails, signals: real ones, on the toy objective with a real Ray."""

import errno
import itertools
import os
import re
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest
import ray
from toy import HORIZON, ToyObjective, search_toy, toy_space

from fer_search.journal import FILE_NAME, Journal, read_events, read_journal
from fer_search.tuning.connection import Resources
from fer_search.tuning.limit import Budget
from fer_search.tuning.run import run_trials
from fer_search.tuning.state import SearchState

TOY = Path(__file__).with_name("toy.py")
ONE = Resources(max_concurrent=1)


def epochs(directory):
    """Return the epochs in the journal: of which trial, and which."""
    events = [event for event, _ in read_events(directory / FILE_NAME)]
    return [(event["trial"], event["epoch"]) for event in events if event["event"] == "epoch_ended"]


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def check_curves(directory):
    """Every trial ended, every epoch is there once, and is what it is without any fault."""
    trials = read_journal(directory / FILE_NAME)
    assert all(trial.ended for trial in trials)
    assert len(set(epochs(directory))) == len(epochs(directory))
    for trial in trials:
        height = 1 - (trial.parameters["x"] - 2) ** 2 / 100
        assert trial.epochs == [{"score": height * (1 - 0.5**epoch)} for epoch in range(1, len(trial.epochs) + 1)]
    return trials


def workers(address):
    """Return the process ids of the workers of a cluster that run trials."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            if b"Trainable" in (process / "cmdline").read_bytes():
                parent = re.search(r"PPid:\s+(\d+)", (process / "status").read_text())[1]
                if address in Path("/proc", parent, "cmdline").read_text():
                    found.append(int(process.name))
        except OSError:
            pass  # it has just ended
    return found


@pytest.fixture
def start(cluster):
    """Start a search of the toy on the cluster, as the leader of a group as in a terminal."""
    started = []

    def start(directory, num_trials, pause):
        command = [sys.executable, str(TOY), str(directory), str(num_trials), str(pause), cluster]
        process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True)
        started.append(process)
        return process

    yield start
    for process in started:
        process.kill()
        process.communicate()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_at_a_signal_every_trial_stops_after_its_epoch_and_waits(tmp_path, start, number):
    process = start(tmp_path, 3, 2.0)
    until(lambda: len(epochs(tmp_path)) == 2)
    time.sleep(0.5)  # an epoch can be read before the driver has gone on: the third has begun now
    os.killpg(process.pid, number)
    time.sleep(0.1)
    os.killpg(process.pid, number)  # as `timeout` does, to its child and to their group
    _, said = process.communicate(timeout=30)
    assert process.returncode == 130, said
    assert f"{number.name}: each trial stops after the epoch that it is in" in said
    (trial,) = read_journal(tmp_path / FILE_NAME)
    assert (trial.state, len(trial.epochs)) == ("PAUSED", 3)
    assert search_toy(tmp_path, 3, resources=ONE)
    assert len(check_curves(tmp_path)) == 3


def test_at_a_second_signal_the_search_stops_in_the_middle_of_an_epoch(tmp_path, start, cluster):
    others = set(workers(cluster))  # of the test before, about to end
    process = start(tmp_path, 1, 60.0)
    until(lambda: set(workers(cluster)) - others)
    time.sleep(1)
    os.killpg(process.pid, signal.SIGINT)
    time.sleep(1)
    assert process.poll() is None
    os.killpg(process.pid, signal.SIGINT)
    assert process.wait(timeout=10) == 130  # Ray itself would wait as long for the epoch
    assert "Traceback" not in process.stderr.read()
    (trial,) = read_journal(tmp_path / FILE_NAME)
    assert (trial.ended, trial.epochs, trial.failures) == (False, [], [])
    assert search_toy(tmp_path, 1, resources=ONE)
    check_curves(tmp_path)


def test_a_signal_that_comes_before_a_suggested_trial_has_a_worker_ends_the_search_in_order(tmp_path, cluster):
    class Interrupted(SearchState):
        def next_trial(self):
            trial = super().next_trial()
            os.kill(os.getpid(), signal.SIGINT)
            return trial

    state = Interrupted(toy_space(2), Journal(tmp_path / FILE_NAME))
    assert not run_trials(ToyObjective(), state, tmp_path, resources=ONE)
    (trial,) = read_journal(tmp_path / FILE_NAME)
    assert (trial.state, trial.epochs) == ("PAUSED", [])
    assert search_toy(tmp_path, 2, resources=ONE)
    assert len(check_curves(tmp_path)) == 2


def test_at_a_signal_a_trial_that_waits_for_a_worker_does_not_start(tmp_path, cluster):
    """It waits where others are on the cluster too, which the search does not count."""

    def interrupt():
        until(lambda: len(epochs(tmp_path)) >= 2 and len(read_journal(tmp_path / FILE_NAME)) == 2)
        os.kill(os.getpid(), signal.SIGINT)

    other = ray.remote(num_cpus=1)(Other).remote()
    assert ray.get(other.is_there.remote())
    thread = threading.Thread(target=interrupt)
    thread.start()
    assert not search_toy(tmp_path, 2, pause=1.0, resources=Resources())  # on two cores
    thread.join()
    ray.kill(other)
    waiting, running = sorted(read_journal(tmp_path / FILE_NAME), key=lambda trial: len(trial.epochs))
    assert (waiting.state, waiting.epochs) == ("PAUSED", [])
    assert running.state == "PAUSED"
    assert len(running.epochs) >= 2


class Other:
    """Someone else's work."""

    def is_there(self):
        return True


def test_neither_a_clock_that_jumps_nor_a_driver_that_stood_still_does_any_harm(tmp_path, cluster, monkeypatch):
    wall, monotonic, jumps, stood_still = time.time, time.monotonic, itertools.cycle((-3600, 0, 3600)), [0.0]
    monkeypatch.setattr(time, "time", lambda: wall() + next(jumps))
    monkeypatch.setattr(time, "monotonic", lambda: monotonic() + stood_still[0])

    def stand_still():
        while len(epochs(tmp_path)) < 2 and not over.wait(0.02):
            pass
        stood_still[0] = 1000.0

    over = threading.Event()
    thread = threading.Thread(target=stand_still)
    thread.start()
    assert search_toy(tmp_path, 2, pause=0.5, resources=Resources(), silence=60.0, budget=Budget(hours=0.5))
    over.set()
    thread.join()
    times = [event["time"] for event, _ in read_events(tmp_path / FILE_NAME)]
    assert times == sorted(times)
    assert [trial.failures for trial in check_curves(tmp_path)] == [[], []]


def test_a_worker_that_is_killed_again_and_again_costs_no_trial_and_no_epoch(tmp_path, start, cluster):
    process = start(tmp_path, 1, 0.2)
    killed = set()
    while len(killed) < 5:
        until(lambda: len(epochs(tmp_path)) > len(killed) and set(workers(cluster)) - killed)
        (worker,) = set(workers(cluster)) - killed
        os.kill(worker, signal.SIGKILL)
        killed.add(worker)
    assert process.wait(timeout=120) == 0
    (trial,) = check_curves(tmp_path)
    assert (trial.state, len(trial.epochs), len(trial.failures)) == ("COMPLETE", HORIZON, 5)


def test_a_worker_that_hangs_is_killed_and_its_trial_goes_on(tmp_path, cluster, caplog):
    def stop_a_worker():
        until(lambda: len(epochs(tmp_path)) >= 2)
        for pid in workers(cluster):
            os.kill(pid, signal.SIGSTOP)

    thread = threading.Thread(target=stop_a_worker)
    thread.start()
    assert search_toy(tmp_path, 1, pause=0.2, resources=ONE, silence=3.0)
    thread.join()
    (trial,) = check_curves(tmp_path)
    assert (trial.state, len(trial.failures)) == ("COMPLETE", 1)
    assert any("trial 0 has reported nothing for" in message for message in caplog.messages)


@pytest.mark.parametrize("fault", ["full", "read-only"])
def test_storage_that_fails_stops_the_search_which_goes_on_once_it_works_again(disk, cluster, fault):
    def break_storage():
        until(lambda: len(epochs(directory)) >= 2)
        disk.fill() if fault == "full" else disk.make_read_only()

    directory = disk.path / "s"
    directory.mkdir()
    thread = threading.Thread(target=break_storage)
    thread.start()
    with pytest.raises(OSError, match=r"No space left|Read-only") as error:
        search_toy(directory, 4, pause=0.2, resources=Resources())
    thread.join()
    assert error.value.errno == (errno.ENOSPC if fault == "full" else errno.EROFS)
    assert str(directory) in error.value.filename
    assert "FAIL" not in {trial.state for trial in read_journal(directory / FILE_NAME)}
    disk.mend()
    assert search_toy(directory, 4, resources=Resources())
    assert len(check_curves(directory)) == 4
