"""The screen of a running search, rendered from a journal at a given time."""

import io
import os
import pty
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest
from rich.console import Console
from scipy.stats import binomtest

from fer_search.journal import FILE_NAME, Journal
from fer_search.live import SearchScreen, sparkline
from fer_search.runs import write_json
from fer_search.spaces import check_space
from fer_search.tracking_state import RunDescription, write_description
from fer_search.tuning.limit import Budget

SPACE = Path(__file__).parent.parent / "search_spaces" / "smoke.toml"


def shown(screen, now):
    console = Console(width=100, file=io.StringIO())
    console.print(screen.render(now))
    return [" ".join(line.split()) for line in console.file.getvalue().splitlines() if line.strip()]


@pytest.fixture
def clock(monkeypatch):
    """Return a list whose only element is the time."""
    now = [1000.0]
    monkeypatch.setattr("time.time", lambda: now[0])
    return now


@pytest.fixture
def run(tmp_path, clock):
    """A search of eight trials of 9 epochs, four of which had an epoch every ten seconds from 1000 s on."""
    table = tomllib.loads(SPACE.read_text())
    space = check_space(table, source=SPACE)
    directory = tmp_path / "s"
    directory.mkdir()
    settings = {"kind": "search", "space_file": str(SPACE), "space": table, "parameters": space.parameters}
    write_json(directory / "settings.json", {**settings, "data": {"num_validation": 400}, "resources": {"gpus": 0.5}})
    write_description(directory, RunDescription("sqlite:///mlflow.db", "id", "search", "s", {}, {}))
    journal = Journal(directory / FILE_NAME)
    for number, curve in enumerate(([0.2, 0.3, 0.4, 0.5], [0.3, 0.6, 0.1], [0.25], [0.9])):
        journal.trial_started(number, {"epochs": 9})
        for epoch, value in enumerate(curve, start=1):
            clock[0] += 10
            journal.epoch_ended(
                number, epoch, {"val_accuracy": value, "images_per_second": 300.0, "epoch_seconds": 72.0}
            )
    journal.trial_ended(2, "PRUNED")
    journal.trial_ended(3, "FAIL", "diverged: the loss is nan")
    return directory


def test_it_says_who_leads_with_the_interval_of_the_validation_faces(run, clock):
    screen = SearchScreen(run, since=1000.0)
    best = next(line for line in shown(screen, clock[0]) if line.startswith("best"))
    low, high = binomtest(200, 400).proportion_ci(method="wilson")
    assert best.startswith(f"best 50.00% ({low:.1%} to {high:.1%}); trial 0, epoch 4 of 9")


def test_a_failed_trial_and_a_value_of_an_earlier_rung_do_not_lead(run, clock):
    screen = SearchScreen(run, since=1000.0)
    shown(screen, clock[0])
    assert screen.best().number == 0


def test_states_speed_epochs_and_budget_are_those_of_the_journal(run, clock):
    lines = shown(SearchScreen(run, since=1000.0, budget=Budget(hours=1, epochs=20, gpu_hours=2)), 1100.0)
    for line in (
        "trials 2 running, 1 stopped, 1 failed, of 8",
        "speed 5.4 epochs a minute; 600 images/s in training steps",
        "epochs 9 of about 20; at this speed 2 min more",
        "budget 58 min of 1 h left; 20 epochs at the most; 0.09 of 2 GPU hours spent",
    ):
        assert line in lines


def test_epochs_from_before_this_start_do_not_count_as_speed(run, clock):
    screen = SearchScreen(run, since=clock[0] + 1)
    assert any(line.startswith("speed 0.0 epochs a minute") for line in shown(screen, clock[0] + 60))


def test_what_is_appended_later_is_shown_too(run, clock):
    screen = SearchScreen(run, since=1000.0)
    shown(screen, clock[0])
    Journal(run / FILE_NAME).epoch_ended(0, 5, {"val_accuracy": 0.55})
    assert any(line.startswith("best 55.00%") for line in shown(screen, clock[0]))


def test_a_search_that_has_not_begun_says_so(tmp_path):
    (line,) = shown(SearchScreen(tmp_path / "later"), 0.0)
    assert line.startswith("later: ")


def test_a_sparkline_is_as_wide_as_it_may_be_and_keeps_the_highest():
    assert sparkline([], width=8) == ""
    assert sparkline([1.0, 1.0], width=8) == "▁▁"
    assert sparkline(range(8), width=8) == "▁▂▃▄▅▆▇█"
    bars = sparkline([0.0] * 50 + [1.0] + [0.0] * 49, width=10)
    assert (len(bars), bars.count("█")) == (10, 1)


def test_watch_ends_with_a_search_that_does_not_run_and_draws_into_a_terminal(run):
    controller, terminal = pty.openpty()
    command = [sys.executable, "-m", "fer_search", "status", "s", "--watch", "--runs", str(run.parent)]
    done = subprocess.Popen(
        command, stdout=terminal, stderr=terminal, env={**os.environ, "TERM": "xterm", "COLUMNS": "100"}
    )
    os.close(terminal)
    text = b""
    try:
        while piece := os.read(controller, 4096):
            text += piece
    except OSError:  # how Linux says that the other end was closed
        pass
    assert done.wait(timeout=60) == 0, text.decode()
    assert "1 stopped" in text.decode()
    assert "1 failed" in text.decode()
