"""Budgets, and searches that get more."""

import heapq
import time

import pytest
from toy import toy_space

from fer_search.errors import InvalidInput
from fer_search.journal import FILE_NAME, Journal, read_events, read_journal
from fer_search.tuning.limit import Budget, Limit
from fer_search.tuning.retention import Retention
from fer_search.tuning.scheduler import StateScheduler
from fer_search.tuning.searcher import StateSearcher
from fer_search.tuning.state import SearchState


class RayTrial:
    def __init__(self, config):
        self.config = config


def play(directory, space, *, budget=None, num_workers=1, gpus=0.0):
    """Run a search through searcher and scheduler, as Tune would, until nothing more may start."""
    state = SearchState(space, Journal(directory / FILE_NAME))
    limit = Limit(state.journal, budget or Budget(), gpus=gpus)
    searcher = StateSearcher(state, places=lambda state: num_workers, limit=limit)
    scheduler = StateScheduler(state, Retention(state, directory), limit=limit)
    busy, now = [], 0.0
    while True:
        while isinstance(config := searcher.suggest(""), dict):
            epoch = len(state.journal.trials[config["trial"]].epochs) + 1
            heapq.heappush(busy, (now + 1 + config["trial"] % 3 / 10, config["trial"], epoch, RayTrial(config)))
        if not busy:
            return state
        now, number, epoch, trial = heapq.heappop(busy)
        score = (1 - (trial.config["parameters"]["x"] - 2) ** 2 / 100) * (1 - 0.5**epoch)
        result = {"epoch": epoch, "metrics/score": score, "metrics/epoch_seconds": 36.0}
        if scheduler.on_trial_result(None, trial, result) == "CONTINUE":
            heapq.heappush(busy, (now + 1, number, epoch + 1, trial))


@pytest.mark.parametrize("num_workers", [1, 2, 5])
@pytest.mark.parametrize("num_epochs", [1, 7, 20])
def test_exactly_the_epochs_of_a_budget_are_run_and_then_every_trial_waits(tmp_path, num_workers, num_epochs):
    state = play(tmp_path, toy_space(30), budget=Budget(epochs=num_epochs), num_workers=num_workers)
    assert sum(event["event"] == "epoch_ended" for event, _ in read_events(tmp_path / FILE_NAME)) == num_epochs
    assert not state.finished
    assert "RUNNING" not in {trial.state for trial in read_journal(tmp_path / FILE_NAME)}


def test_a_search_in_portions_is_the_search_in_one_piece(tmp_path):
    def story(directory):
        kinds = ("trial_started", "epoch_ended", "trial_ended")
        events = [event for event, _ in read_events(directory / FILE_NAME) if event["event"] in kinds]
        return [{key: value for key, value in event.items() if key != "time"} for event in events]

    (tmp_path / "whole").mkdir()
    whole = play(tmp_path / "whole", toy_space(12))
    for num_epochs in range(3, whole.journal.num_epochs + 3, 3):
        state = play(tmp_path, toy_space(12), budget=Budget(epochs=num_epochs))
    assert state.finished
    assert story(tmp_path) == story(tmp_path / "whole")


def test_gpu_hours_count_the_share_of_the_gpu_that_a_trial_occupies(tmp_path):
    play(tmp_path, toy_space(30), budget=Budget(gpu_hours=0.05), gpus=0.5)
    assert Journal(tmp_path / FILE_NAME).num_epochs == 10  # of 36 seconds on half a GPU


def test_a_budget_in_hours_ends_with_the_clock(tmp_path):
    limit = Limit(Journal(tmp_path / FILE_NAME), Budget(hours=0.2 / 3600), gpus=0)
    assert limit.allows(1000)
    time.sleep(0.25)
    assert not limit.allows(0)


def test_a_budget_that_is_spent_or_that_counts_nothing_is_an_error(tmp_path):
    play(tmp_path, toy_space(30), budget=Budget(epochs=10))
    journal = Journal(tmp_path / FILE_NAME)
    Budget(hours=1, epochs=11).check(journal, gpus=0)
    with pytest.raises(InvalidInput) as error:
        Budget(epochs=10, gpu_hours=1).check(journal, gpus=0)
    assert list(error.value.problems) == [
        "command line: epoch-budget: must be more than the 10 epochs that the search has had, got 10",
        "command line: gpu-hours: must not be given where trials occupy no GPU, got 1",
    ]
    with pytest.raises(InvalidInput, match=r"must be more than the 0\.10 that the search has had, got 0\.1"):
        Budget(gpu_hours=0.1).check(journal, gpus=1)


def test_a_finished_search_goes_on_with_more_trials_and_what_it_stopped_stays_stopped(tmp_path):
    play(tmp_path, toy_space(9)).close()
    before = {trial.number: trial for trial in read_journal(tmp_path / FILE_NAME)}
    assert all(trial.ended for trial in before.values())
    state = SearchState(toy_space(20), Journal(tmp_path / FILE_NAME))
    trial = state.next_trial()
    assert trial.number == 9
    assert all(state.report(9, epoch, {"score": 1.0}) for epoch in (1, 2, 3))  # of one alone the best third is nobody
    state.interrupt(9)
    play(tmp_path, toy_space(20)).close()
    after = {trial.number: trial for trial in read_journal(tmp_path / FILE_NAME)}
    assert len(after) == 20
    assert {number: after[number] for number in before} == before
    assert all(trial.ended for trial in after.values())
