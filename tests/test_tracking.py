"""Runs in a real SQLite store, read with MLflow's own client."""

import time

import pytest
from mlflow import MlflowClient

from fer_search.errors import InvalidInput
from fer_search.journal import Journal, read_events, read_journal
from fer_search.journal_tracker import JournalTracker
from fer_search.tracking import EXPERIMENT, Tracker
from fer_search.tracking_state import RunDescription
from fer_search.tracking_uri import check_uri, local_store


@pytest.fixture(scope="module")
def store(tmp_path_factory, with_stores):
    return local_store(with_stores(tmp_path_factory.mktemp("store")))


def tracker_for(store, search_id, trials=(), **more):
    described = {"kind": "search", "title": "s", "tags": {"space": "toy"}, "parent_params": {"eta": 3}, **more}
    description = RunDescription(uri=store, search_id=search_id, **described)
    return JournalTracker(Tracker(store), description, tags_of=lambda p: {"x": str(p["x"])}, trials=trials)


def play(path, tracker, at_once=1):
    events = [event for event, _ in read_events(path)]
    for start in range(0, len(events), at_once):
        tracker.receive(events[start : start + at_once])


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for number, (epochs, state) in enumerate([(3, "COMPLETE"), (1, "PRUNED"), (2, "FAIL"), (2, None)]):
        journal.trial_started(number, {"x": number, "rate": 0.1})
        for epoch in range(1, epochs + 1):
            journal.epoch_ended(number, epoch, {"score": epoch / 10 + number})
            time.sleep(0.002)
        if state:
            journal.trial_ended(number, state, "because" if state == "FAIL" else "")
    return journal


def runs_of(store, search_id):
    client = MlflowClient(store)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    runs = client.search_runs([experiment.experiment_id], f"tags.`fer_search.search_id` = '{search_id}'")
    parents = [run for run in runs if "mlflow.parentRunId" not in run.data.tags]
    children = sorted((run for run in runs if run not in parents), key=lambda run: run.info.run_name)
    return client, parents, children


def check(store, search_id):
    client, (parent,), children = runs_of(store, search_id)
    assert [run.info.status for run in children] == ["FINISHED", "KILLED", "FAILED", "KILLED"]
    assert all(run.data.tags["mlflow.parentRunId"] == parent.info.run_id for run in children)
    for number, (run, epochs) in enumerate(zip(children, (3, 1, 2, 2), strict=True)):
        assert run.data.params == {"x": str(number), "rate": "0.1"}
        assert run.data.tags["x"] == str(number)
        history = client.get_metric_history(run.info.run_id, "score")
        assert [(m.step, m.value) for m in history] == [(e, e / 10 + number) for e in range(1, epochs + 1)]
    assert children[2].data.tags["message"] == "because"
    return parent


@pytest.mark.parametrize("at_once", [1, 3, 1000])
def test_a_search_becomes_a_parent_and_a_child_per_trial_with_every_epoch_once(store, journal, at_once):
    tracker = tracker_for(store, f"a{at_once}")
    play(journal.path, tracker, at_once)
    tracker.close("FINISHED")
    parent = check(store, f"a{at_once}")
    assert (parent.info.status, parent.data.params, parent.data.tags["kind"]) == ("FINISHED", {"eta": "3"}, "search")


def test_replaying_a_journal_after_a_restart_changes_nothing(store, journal):
    first = tracker_for(store, "b")
    first.receive([event for event, _ in read_events(journal.path)][:7])  # then the process is killed
    second = tracker_for(store, "b")
    play(journal.path, second)
    second.close("KILLED")
    check(store, "b")
    third = tracker_for(store, "b")
    play(journal.path, third, at_once=5)
    third.close("FINISHED")
    assert check(store, "b").info.status == "FINISHED"


def test_two_searches_in_one_store_do_not_mix(store, journal):
    for search_id in ("c", "d"):
        tracker = tracker_for(store, search_id)
        play(journal.path, tracker)
        tracker.close("FINISHED")
        check(store, search_id)


def test_a_cost_is_a_param_beside_the_recipe(store, tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.trial_started(0, {"x": 1}, cost=2.5)
    play(journal.path, tracker_for(store, "cost"))
    _, _, (child,) = runs_of(store, "cost")
    assert child.data.params == {"x": "1", "cost": "2.5"}


def test_a_trial_that_waits_at_a_rung_is_scheduled_and_runs_again_when_it_is_promoted(store, tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    statuses = []
    tracker = tracker_for(store, "e")
    journal.trial_started(0, {"x": 1})
    for step in (
        lambda: journal.epoch_ended(0, 1, {"score": 0.5}),
        lambda: journal.trial_paused(0),
        lambda: journal.trial_promoted(0, 1),
        lambda: journal.trial_ended(0, "COMPLETE"),
    ):
        step()
        play(journal.path, tracker)
        _, _, (child,) = runs_of(store, "e")
        statuses.append(child.info.status)
    assert statuses == ["RUNNING", "SCHEDULED", "RUNNING", "FINISHED"]


def test_a_training_is_one_run_without_a_parent(store, tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.trial_started(0, {"x": 1})
    journal.epoch_ended(0, 1, {"score": 0.5})
    journal.trial_ended(0, "COMPLETE")
    tracker = tracker_for(store, "f", kind="retrain", parent_params=None)
    play(journal.path, tracker)
    tracker.close("FINISHED")
    _, (run,), children = runs_of(store, "f")
    assert children == []
    assert (run.info.status, run.data.tags["kind"], run.data.metrics) == ("FINISHED", "retrain", {"score": 0.5})


def test_a_restart_sends_only_what_is_new(store, journal):
    events = list(read_events(journal.path))
    head, offset = [event for event, _ in events[:7]], events[6][1]
    tracker_for(store, "h").receive(head)  # then the process is killed
    second = tracker_for(store, "h", trials=read_journal(journal.path, until=offset))
    second.receive([event for event, _ in events[7:]])
    second.close("FINISHED")
    check(store, "h")


def test_a_search_that_ends_without_news_still_closes_what_was_left_open(store, journal):
    play(journal.path, tracker_for(store, "i"))  # then the machine stops
    tracker_for(store, "i", trials=read_journal(journal.path)).close("KILLED")
    assert check(store, "i").info.status == "KILLED"


def test_more_epochs_and_parameters_than_a_call_takes_arrive_all(store, tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.trial_started(0, {"x": 1, **{f"p{index}": index for index in range(150)}})
    for epoch in range(1, 151):
        journal.epoch_ended(0, epoch, {f"m{index}": float(epoch * index) for index in range(10)})
    play(journal.path, tracker_for(store, "many"), at_once=1000)
    client, _, (child,) = runs_of(store, "many")
    assert len(child.data.params) == 151
    for index in range(10):
        history = client.get_metric_history(child.info.run_id, f"m{index}")
        assert [(m.step, m.value) for m in history] == [(epoch, epoch * index) for epoch in range(1, 151)]


def test_a_run_that_was_deleted_in_mlflow_stays_deleted_and_stops_nothing(store, journal):
    events = [event for event, _ in read_events(journal.path)]
    tracker = tracker_for(store, "gone")
    tracker.receive(events[:2])
    client, _, (child,) = runs_of(store, "gone")
    client.delete_run(child.info.run_id)
    later = tracker_for(store, "gone", trials=read_journal(journal.path)[:1])
    later.receive(events[2:])
    later.close("FINISHED")
    _, _, children = runs_of(store, "gone")
    assert [run.info.run_name for run in children] == ["trial 00001", "trial 00002", "trial 00003"]


def test_a_server_that_is_away_raises_so_that_its_events_are_kept(monkeypatch):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "0")
    tracker = tracker_for("http://127.0.0.1:9", "g")
    with pytest.raises(Exception, match=r"127\.0\.0\.1"):
        tracker.receive([{"event": "trial_started", "trial": 0, "parameters": {"x": 1}, "time": 0.0}])


@pytest.mark.parametrize("call", ["create_run", "log", "set_status"])
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_call_that_fails_once_before_or_after_it_was_done_changes_nothing(store, journal, monkeypatch, call, moment):
    search_id = f"{call} {moment}"
    tracker = tracker_for(store, search_id)
    original, calls = getattr(tracker.tracker, call), iter(range(1000))

    def flaky(*arguments, **settings):
        number = next(calls)
        if number == 1 and moment == "before":
            raise ConnectionError("the server is away")
        done = original(*arguments, **settings)
        if number == 1 and moment == "after":
            raise ConnectionError("the answer was lost")
        return done

    monkeypatch.setattr(tracker.tracker, call, flaky)
    for event, _ in read_events(journal.path):
        try:
            tracker.receive([event])
        except ConnectionError:
            tracker.receive([event])  # as the follower does
    tracker.close("FINISHED")
    check(store, search_id)


@pytest.mark.parametrize("uri", ["./mlruns", "mlruns", "ftp://x", ""])
def test_an_address_that_mlflow_cannot_track_to_is_refused(uri):
    with pytest.raises(InvalidInput, match="tracking-uri: must begin with one of http:"):
        check_uri(uri)


def test_of_two_that_find_no_experiment_at_once_both_use_the_one_that_is_made(tmp_path, with_stores, monkeypatch):
    store, create = local_store(with_stores(tmp_path)), MlflowClient.create_experiment

    def second(*arguments):
        create(*arguments)  # as another process does, after this one has looked
        return create(*arguments)

    monkeypatch.setattr(MlflowClient, "create_experiment", second)
    found = Tracker(store).experiment_id
    assert found == MlflowClient(store).get_experiment_by_name(EXPERIMENT).experiment_id
