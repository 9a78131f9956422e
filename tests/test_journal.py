import json
import time

import pytest

from fer_search.errors import InvalidInput
from fer_search.follower import Follower, each
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
    with Follower(tmp_path / "j", each(received.append), name="test"):
        time.sleep(0.3)
        journal.trial_ended(0, "COMPLETE")
    assert received == [event for event, _ in read_events(tmp_path / "j")]


def test_a_receiver_that_fails_for_a_while_loses_nothing_and_gets_nothing_twice(tmp_path, caplog):
    received, failures = [], iter([True] * 3)

    def receive(events):
        if next(failures, False):
            raise ConnectionError("the server is away")
        received.extend(events)

    told = []
    filled(tmp_path / "j")
    with Follower(tmp_path / "j", receive, name="test", every=0.01, told=lambda *state: told.append(state)):
        deadline = time.monotonic() + 10
        while len(received) < 3 and time.monotonic() < deadline:
            time.sleep(0.01)
    assert received == [event for event, _ in read_events(tmp_path / "j")]
    assert sum("the server is away" in message for message in caplog.messages) == 1
    assert told == [(0, "the server is away"), ((tmp_path / "j").stat().st_size, None)]


def test_what_was_never_taken_is_counted(tmp_path):
    def receive(events):
        raise ConnectionError("the server is away")

    filled(tmp_path / "j")
    with Follower(tmp_path / "j", receive, name="MLflow") as follower:
        pass
    assert follower.unsent == 3


def test_a_receiver_that_was_there_before_is_waited_for_at_the_end(tmp_path):
    received, calls = [], iter([False, True, True, True])

    def receive(events):
        if next(calls, False):
            raise ConnectionError("the server is being restarted")
        received.extend(events)

    journal = filled(tmp_path / "j")
    with Follower(tmp_path / "j", receive, name="MLflow", every=0.01) as follower:
        deadline = time.monotonic() + 10
        while not received and time.monotonic() < deadline:
            time.sleep(0.01)
        journal.trial_ended(0, "COMPLETE")
    assert follower.unsent == 0
    assert received == [event for event, _ in read_events(tmp_path / "j")]


def test_a_clock_that_is_set_back_does_not_turn_the_record_around(tmp_path, monkeypatch):
    clock = iter([5000.0, 1400.0, 5200.0])
    monkeypatch.setattr(time, "time", lambda: next(clock))
    journal = Journal(tmp_path / "j")
    journal.trial_started(0, {"x": 1})
    journal.epoch_ended(0, 1, {"score": 0.5})
    Journal(tmp_path / "j").trial_ended(0, "COMPLETE")
    assert [event["time"] for event, _ in read_events(tmp_path / "j")] == [5000.0, 5000.0, 5200.0]


@pytest.mark.parametrize(
    "line", [b"\0" * 30, b"{}", b"[]", b"3", b'{"event": "epoch_ended", "trial": 7, "metrics": {}}', b"[" * 10**5]
)
def test_a_damaged_line_is_named(tmp_path, line):
    filled(tmp_path / "j")
    size = (tmp_path / "j").stat().st_size
    with (tmp_path / "j").open("ab") as file:
        file.write(line + b"\n")
    with pytest.raises(InvalidInput, match=rf"j: byte {size}: must begin"):
        read_journal(tmp_path / "j")


def test_a_trial_ends_once(tmp_path):
    journal = filled(tmp_path / "j")
    journal.trial_ended(0, "PRUNED")
    journal.trial_ended(0, "COMPLETE")
    (record,) = read_journal(tmp_path / "j")
    assert (record.state, record.ended) == ("PRUNED", True)
