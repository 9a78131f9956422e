import json
import time

from fer_search import follower as follower_module
from fer_search.follower import Follower
from fer_search.journal import Journal, read_events, read_journal


def filled(path):
    journal = Journal(path)
    journal.trial_started(0, {"x": 1})
    journal.epoch_ended(0, 1, {"score": 0.5})
    journal.epoch_ended(0, 2, {"score": 0.6})
    return journal


def test_the_records_are_what_was_written(tmp_path):
    filled(tmp_path / "j").trial_ended(0, "PRUNED", "weak")
    (record,) = read_journal(tmp_path / "j")
    assert (record.number, record.parameters, record.state, record.message) == (0, {"x": 1}, "PRUNED", "weak")
    assert record.epochs == [{"score": 0.5}, {"score": 0.6}]
    assert record.last("score") == 0.6


def test_a_cost_is_on_record_where_there_is_one(tmp_path):
    journal = filled(tmp_path / "j")
    journal.trial_started(1, {"x": 2}, point={"x": 2}, cost=3.5)
    assert [(record.point, record.cost) for record in read_journal(tmp_path / "j")] == [({}, None), ({"x": 2}, 3.5)]


def test_a_reopened_journal_repeats_nothing(tmp_path):
    filled(tmp_path / "j")
    before = (tmp_path / "j").read_bytes()
    filled(tmp_path / "j")  # what a resumed run reports again
    assert (tmp_path / "j").read_bytes() == before


def test_a_line_cut_off_by_a_kill_is_removed_and_the_rest_is_kept(tmp_path):
    filled(tmp_path / "j")
    whole = (tmp_path / "j").read_bytes()
    (tmp_path / "j").write_bytes(whole + b'{"event": "epoch_en')
    assert len(read_journal(tmp_path / "j")[0].epochs) == 2
    Journal(tmp_path / "j").epoch_ended(0, 3, {"score": 0.7})
    lines = (tmp_path / "j").read_bytes().splitlines()
    assert [json.loads(line)["event"] for line in lines] == ["trial_started"] + ["epoch_ended"] * 3


def test_a_trial_that_waits_and_goes_on_has_passed_the_rung(tmp_path):
    journal = filled(tmp_path / "j")
    journal.trial_paused(0)
    assert [(record.state, record.passed, record.ended) for record in read_journal(tmp_path / "j")] == [
        ("PAUSED", 0, False)
    ]
    journal.trial_promoted(0, 2)
    assert [(record.state, record.passed) for record in read_journal(tmp_path / "j")] == [("RUNNING", 2)]


def test_a_follower_receives_every_event_in_order_also_what_comes_later(tmp_path):
    received = []
    journal = filled(tmp_path / "j")
    with Follower(tmp_path / "j", received.append, name="test"):
        time.sleep(0.3)
        journal.trial_ended(0, "COMPLETE")
    assert received == [event for event, _ in read_events(tmp_path / "j")]


def test_a_receiver_that_fails_for_a_while_loses_nothing_and_gets_nothing_twice(tmp_path, monkeypatch, caplog):
    monkeypatch.setattr(follower_module, "POLL_SECONDS", 0.01)
    received, failures = [], iter([True] * 5)

    def receive(event):
        if len(received) == 1 and next(failures, False):
            raise ConnectionError("the server is away")
        received.append(event)

    filled(tmp_path / "j")
    with Follower(tmp_path / "j", receive, name="test"):
        deadline = time.monotonic() + 10
        while len(received) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert received == [event for event, _ in read_events(tmp_path / "j")]
    assert sum("the server is away" in message for message in caplog.messages) == 1


def test_what_was_never_taken_is_announced(tmp_path, caplog):
    def receive(event):
        raise ConnectionError("the server is away")

    filled(tmp_path / "j")
    with Follower(tmp_path / "j", receive, name="MLflow"):
        pass
    assert any("MLflow: 3 events were not taken" in message for message in caplog.messages)


def test_a_trial_ends_once(tmp_path):
    journal = filled(tmp_path / "j")
    journal.trial_ended(0, "PRUNED")
    journal.trial_ended(0, "COMPLETE")
    (record,) = read_journal(tmp_path / "j")
    assert (record.state, record.ended) == ("PRUNED", True)
