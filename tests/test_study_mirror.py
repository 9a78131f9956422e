"""Studies in a real SQLite file, read with Optuna's own functions."""

import sqlite3
from datetime import datetime

import optuna
import pytest
from optuna.distributions import CategoricalDistribution, FloatDistribution, IntDistribution
from optuna.storages import RDBStorage

from fer_search import study_mirror
from fer_search.follower import Follower, each
from fer_search.journal import Journal, read_events, read_journal
from fer_search.study_mirror import StudyMirror

DOMAINS = {
    "rate": FloatDistribution(1e-4, 1.0, log=True),
    "size": IntDistribution(0, 8),
    "kind": CategoricalDistribution(("plain", "deep")),
    "depth[kind=deep]": IntDistribution(1, 9),
}


def mirror_in(directory, search_id, *, name="first"):
    return StudyMirror(
        directory / "optuna.db",
        search_id=search_id,
        name=name,
        metric="score",
        domains=DOMAINS,
        attributes_of=lambda parameters: {"digest": str(parameters["size"])},
    )


def studies_in(directory):
    url = f"sqlite:///{directory / 'optuna.db'}"
    return {name: optuna.load_study(study_name=name, storage=url) for name in optuna.get_all_study_names(url)}


def play(path, mirror):
    for event, _ in read_events(path):
        mirror.receive(event)


@pytest.fixture
def journal(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    for number, (epochs, state) in enumerate([(3, "COMPLETE"), (1, "PRUNED"), (2, "FAIL"), (0, "FAIL"), (2, None)]):
        point = {"rate": 0.1, "size": number, "kind": "deep" if number == 1 else "plain"}
        if number == 1:
            point["depth[kind=deep]"] = 7
        journal.trial_started(number, {"size": number, "epochs": 3}, point=point)
        for epoch in range(1, epochs + 1):
            journal.epoch_ended(number, epoch, {"loss": 1.0, "score": epoch / 10 + number})
        if state:
            journal.trial_ended(number, state, "because" if state == "FAIL" else "")
    return journal


def check(study, search_id):
    assert study.user_attrs == {"search_id": search_id, "metric": "score"}
    assert study.direction.name == "MAXIMIZE"
    assert [trial.number for trial in study.trials] == [0, 1, 2, 3, 4]
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "PRUNED", "FAIL", "FAIL", "RUNNING"]
    assert [trial.values for trial in study.trials] == [[0.3], [1.1], None, None, None]
    assert [trial.intermediate_values for trial in study.trials] == [
        {1: 0.1, 2: 0.2, 3: 0.3}, {1: 1.1}, {1: 2.1, 2: 2.2}, {}, {1: 4.1, 2: 4.2},
    ]  # fmt: skip
    for number, trial in enumerate(study.trials):
        plain = {"rate": 0.1, "size": number, "kind": "plain"}
        assert trial.params == ({**plain, "kind": "deep", "depth[kind=deep]": 7} if number == 1 else plain)
        assert trial.distributions == {name: DOMAINS[name] for name in trial.params}
        message = {"message": "because"} if number in (2, 3) else {}
        assert trial.user_attrs == {"digest": str(number), **message}
    assert study.best_trial.number == 0


def test_a_search_becomes_a_study_with_every_trial_and_epoch(tmp_path, journal):
    play(journal.path, mirror_in(tmp_path, "a"))
    studies = studies_in(tmp_path)
    assert list(studies) == ["first"]
    check(studies["first"], "a")
    starts = [trial.datetime_start for trial in studies["first"].trials]
    assert starts == [datetime.fromtimestamp(record.started) for record in read_journal(journal.path)]


def test_a_mirror_that_is_cut_off_after_every_event_goes_on_as_if_it_had_not_been(tmp_path, journal):
    for length in range(1, 1 + len(list(read_events(journal.path)))):
        mirror = mirror_in(tmp_path, "a")
        for event, _ in list(read_events(journal.path))[:length]:
            mirror.receive(event)
    studies = studies_in(tmp_path)
    assert list(studies) == ["first"]
    check(studies["first"], "a")


def test_searches_in_one_file_do_not_mix_even_with_one_name(tmp_path, journal):
    for search_id, name in (("a" * 32, "first"), ("b" * 32, "second"), ("c" * 32, "first")):
        for _ in range(2):  # begun, and resumed
            play(journal.path, mirror_in(tmp_path, search_id, name=name))
    studies = studies_in(tmp_path)
    assert list(studies) == ["first", "second", "first-cccccccc"]
    for study, letter in zip(studies.values(), "abc", strict=True):
        check(study, letter * 32)


def test_somebodys_own_study_of_that_name_is_left_alone_and_one_cut_off_in_the_making_is_taken(tmp_path, journal):
    storage = RDBStorage(f"sqlite:///{tmp_path / 'optuna.db'}")
    optuna.create_study(storage=storage, study_name="first").optimize(lambda trial: trial.suggest_float("x", 0, 1), 1)
    optuna.create_study(storage=storage, study_name="second", direction="maximize")
    for search_id, name in (("a" * 32, "first"), ("b" * 32, "second")):
        play(journal.path, mirror_in(tmp_path, search_id, name=name))
    studies = studies_in(tmp_path)
    assert list(studies) == ["first", "second", "first-aaaaaaaa"]
    assert (len(studies["first"].trials), studies["first"].user_attrs) == (1, {})
    check(studies["second"], "b" * 32)
    check(studies["first-aaaaaaaa"], "a" * 32)


def test_a_trial_that_waits_at_a_rung_is_waiting_and_runs_on_in_the_same_trial(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    states = []
    for step in (
        lambda: journal.trial_started(0, {"size": 1}, point={"rate": 0.1, "size": 1, "kind": "plain"}),
        lambda: journal.epoch_ended(0, 1, {"score": 0.5}),
        lambda: journal.trial_paused(0),
        lambda: journal.trial_promoted(0, 1),
        lambda: journal.epoch_ended(0, 2, {"score": 0.4}),
        lambda: journal.trial_paused(0),
        lambda: journal.trial_resumed(0),
        lambda: journal.trial_ended(0, "COMPLETE"),
    ):
        step()
        play(journal.path, mirror_in(tmp_path, "a"))
        (trial,) = studies_in(tmp_path)["first"].trials
        states.append(trial.state.name)
    assert states == ["RUNNING", "RUNNING", "WAITING", "RUNNING", "RUNNING", "WAITING", "RUNNING", "COMPLETE"]
    assert (trial.value, trial.intermediate_values) == (0.4, {1: 0.5, 2: 0.4})


def test_what_ran_when_a_search_was_interrupted_waits_and_runs_again_with_its_next_epoch(tmp_path, journal):
    mirror = mirror_in(tmp_path, "a")
    play(journal.path, mirror)
    mirror.close()
    ended = ["COMPLETE", "PRUNED", "FAIL", "FAIL"]
    assert [trial.state.name for trial in studies_in(tmp_path)["first"].trials] == [*ended, "WAITING"]
    mirror = mirror_in(tmp_path, "a")
    play(journal.path, mirror)
    assert [trial.state.name for trial in studies_in(tmp_path)["first"].trials] == [*ended, "WAITING"]
    journal.epoch_ended(4, 3, {"score": 4.3})
    play(journal.path, mirror)
    assert [trial.state.name for trial in studies_in(tmp_path)["first"].trials] == [*ended, "RUNNING"]


def test_a_restart_does_not_start_anew_what_it_hears_of_again(tmp_path):
    journal = Journal(tmp_path / "journal.jsonl")
    journal.trial_started(0, {"size": 1}, point={"rate": 0.1, "size": 1, "kind": "plain"})
    for epoch in (1, 3, 9):
        for number in range(len(journal.trials[0].epochs) + 1, epoch + 1):
            journal.epoch_ended(0, number, {"score": 0.5})
        journal.trial_paused(0)
        if epoch < 9:
            journal.trial_promoted(0, epoch)
    starts = set()
    for _ in range(3):
        play(journal.path, mirror_in(tmp_path, "a"))
        (trial,) = studies_in(tmp_path)["first"].trials
        starts.add(trial.datetime_start)
        assert trial.state.name == "WAITING"
    assert len(starts) == 1


@pytest.mark.parametrize(
    "call",
    [
        "create_new_study", "set_study_user_attr", "create_new_trial", "set_trial_intermediate_value",
        "set_trial_user_attr", "set_trial_state_values",
    ],
)  # fmt: skip
@pytest.mark.parametrize("moment", ["before", "after"])
def test_a_call_that_fails_once_before_or_after_it_was_done_changes_nothing(
    tmp_path, journal, with_stores, monkeypatch, call, moment
):
    with_stores(tmp_path)
    original, calls = getattr(RDBStorage, call), iter(range(1000))

    def flaky(*arguments):
        number = next(calls)
        if number == 0 and moment == "before":
            raise ConnectionError("the disk is away")
        done = original(*arguments)
        if number == 0 and moment == "after":
            raise ConnectionError("the answer was lost")
        return done

    monkeypatch.setattr(RDBStorage, call, flaky)
    mirror = mirror_in(tmp_path, "a")
    failures = 0
    for event, _ in read_events(journal.path):
        try:
            mirror.receive(event)
        except ConnectionError:
            failures += 1
            mirror.receive(event)  # as the follower does
    assert failures == 1
    studies = studies_in(tmp_path)
    assert list(studies) == ["first"]
    check(studies["first"], "a")


def test_a_file_that_another_process_holds_is_written_once_it_is_free(tmp_path, journal, monkeypatch):
    monkeypatch.setattr(study_mirror, "BUSY_SECONDS", 0)
    mirror = mirror_in(tmp_path, "a")
    first, second, *others = (event for event, _ in read_events(journal.path))
    mirror.receive(first)
    other = sqlite3.connect(tmp_path / "optuna.db")
    other.execute("BEGIN EXCLUSIVE")
    with pytest.raises(optuna.exceptions.StorageInternalError):
        mirror.receive(second)
    other.rollback()
    other.close()
    for event in (second, *others):
        mirror.receive(event)
    check(studies_in(tmp_path)["first"], "a")


def test_a_file_that_is_no_data_base_costs_a_search_nothing_but_a_message(tmp_path, journal, caplog):
    (tmp_path / "optuna.db").write_text("this is no data base, and never was one" * 40)
    with Follower(journal.path, each(mirror_in(tmp_path, "a").receive), name="Optuna's storage") as follower:
        journal.epoch_ended(4, 3, {"score": 4.3})
    assert any("not a database" in message for message in caplog.messages)
    assert follower.unsent == len(list(read_events(journal.path)))


def test_a_cost_is_a_user_attribute(tmp_path):
    journal = Journal(tmp_path / "costs.jsonl")
    journal.trial_started(0, {"size": 0}, point={"rate": 0.1, "size": 0, "kind": "plain"}, cost=2.5)
    play(journal.path, mirror_in(tmp_path, "a"))
    assert studies_in(tmp_path)["first"].trials[0].user_attrs == {"digest": "0", "cost": 2.5}
