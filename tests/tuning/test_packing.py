"""How many trials share a device, measured on a real Ray, and what becomes of one that does not fit beside others."""

import fcntl
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import ray
from toy import toy_space
from toy_objective import HORIZON, ToyReport

from fer_search.errors import InvalidInput
from fer_search.journal import FILE_NAME, Journal, read_events, read_journal
from fer_search.tuning.connection import Resources
from fer_search.tuning.limit import Budget, Limit
from fer_search.tuning.packing import Packing, best_packing, measure_packings, possible_packings
from fer_search.tuning.run import run_trials
from fer_search.tuning.state import SearchState


@dataclass(frozen=True)
class Crowded:
    """A training on a device in `directory` that has room for so many: one more runs out of memory."""

    directory: Path
    room: int
    seconds: float = 0.05

    def __call__(self, parameters: Mapping[str, Any], resume_from: Path | None) -> Iterator[ToyReport]:
        first = int((resume_from / "state.json").read_text()) + 1 if resume_from else 1
        with self.take_place():
            for epoch in range(first, parameters["epochs"] + 1):
                time.sleep(self.seconds)
                yield ToyReport({"score": 1 - 0.5**epoch, "epoch_seconds": self.seconds}, epoch)

    def take_place(self):
        """A lock on one of the places, which a process that ends gives back."""
        for place in range(self.room):
            file = (self.directory / f"place_{place}").open("w")
            try:
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except OSError:
                file.close()
            else:
                return file
        raise MemoryError("the device is full")


@pytest.fixture(scope="module", autouse=True)
def one_gpu():
    """Ray counts the GPUs that it is told of, and looks for none."""
    ray.init(address="local", num_cpus=4, num_gpus=1, include_dashboard=False, log_to_driver=False)
    yield
    ray.shutdown()


@pytest.mark.parametrize(
    ("node", "asked", "found"),
    [
        ({"CPU": 16.0, "GPU": 1.0}, Resources(1, 1.0), [(1, 1, 1.0), (2, 1, 0.5), (4, 1, 0.25), (8, 1, 0.125)]),
        ({"CPU": 16.0, "GPU": 4.0}, Resources(1, 1.0), [(1, 1, 1.0), (2, 1, 0.5), (4, 1, 0.25)]),
        ({"CPU": 16.0, "GPU": 1.0}, Resources(5, 1.0), [(1, 5, 1.0), (2, 5, 0.5)]),  # 20 cores for four
        ({"CPU": 16.0, "GPU": 1.0}, Resources(1, 1.0, 2), [(1, 1, 1.0), (2, 1, 0.5)]),
        ({"CPU": 2.0}, Resources(), [(1, 2, 0.0), (2, 1, 0.0)]),
        ({"CPU": 6.0}, Resources(), [(1, 6, 0.0), (2, 3, 0.0), (4, 1, 0.0)]),
        ({"CPU": 32.0}, Resources(), [(1, 32, 0.0), (2, 16, 0.0), (4, 8, 0.0), (8, 4, 0.0)]),
        ({"CPU": 2.0, "GPU": 4.0}, Resources(1, 1.0), [(1, 1, 1.0)]),
    ],
)
def test_so_many_trials_may_share_a_device_as_there_are_cores_for(node, asked, found):
    packings = possible_packings(node, asked)
    assert [(count, each.cpus, each.gpus) for count, each in packings] == found
    assert all(each.max_concurrent == asked.max_concurrent for _, each in packings)


def test_trials_that_fit_are_timed_together_and_the_first_that_do_not_end_it(tmp_path):
    crowded = Crowded(tmp_path, room=2)
    found = measure_packings(lambda each: crowded, {"epochs": 1000}, Resources(1, 1.0), seconds=1.0)
    assert [packing.count for packing in found] == [1, 2, 4]
    assert [packing.resources.gpus for packing in found] == [1.0, 0.5, 0.25]
    one, two, four = (packing.rate for packing in found)
    assert 5 < one <= 1 / crowded.seconds
    assert 1.3 * one < two <= 2 / crowded.seconds  # asleep, they do not hinder each other
    assert four is None
    assert best_packing(found) == found[1]


def test_where_not_even_one_fits_there_is_nothing_to_choose(tmp_path):
    found = measure_packings(lambda each: Crowded(tmp_path, room=0), {"epochs": 9}, Resources(1, 1.0), seconds=1.0)
    assert [packing.rate for packing in found] == [None]
    with pytest.raises(InvalidInput, match="pack: must find room for one trial, got 'too little memory'"):
        best_packing(found)


def test_of_equally_fast_packings_the_one_with_the_fewest_trials_is_chosen():
    packings = [Packing(count, Resources(1, 1 / count), rate, False) for count, rate in ((1, 2.0), (2, 3.0), (4, 3.0))]
    assert best_packing(packings).count == 2


def test_a_cluster_without_what_is_to_be_shared_is_an_error(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_search.tuning.packing.live_nodes", lambda: [{"CPU": 4.0}])
    with pytest.raises(InvalidInput, match="pack: must find a node with a GPU"):
        measure_packings(lambda each: Crowded(tmp_path, room=1), {}, Resources(1, 1.0), seconds=1.0)


def test_a_device_that_others_use_is_not_measured(tmp_path, monkeypatch):
    monkeypatch.setattr("fer_search.tuning.packing.IDLE_SECONDS", 1.0)

    @ray.remote(num_gpus=0.5)
    class Other:
        def ready(self):
            return True

    other = Other.remote()
    assert ray.get(other.ready.remote())
    with pytest.raises(InvalidInput, match="pack: must find a node with 1 CPUs and 1 GPUs idle, got 'none for 1 s'"):
        measure_packings(lambda each: Crowded(tmp_path, room=1), {}, Resources(1, 1.0), seconds=1.0)
    ray.kill(other)


def test_a_trial_that_does_not_fit_beside_another_comes_again_with_the_gpu_to_itself(tmp_path):
    state = SearchState(toy_space(4, scheduler="none"), Journal(tmp_path / FILE_NAME))
    (tmp_path / "device").mkdir()
    crowded = Crowded(tmp_path / "device", room=1)
    assert run_trials(crowded, state, tmp_path, resources=Resources(1, 0.5))
    trials = read_journal(tmp_path / FILE_NAME)
    assert [(trial.state, len(trial.epochs), trial.failures) for trial in trials] == [("COMPLETE", HORIZON, [])] * 4
    assert {trial.places for trial in trials} == {1, 2}
    epochs = [(event["trial"], event["epoch"]) for event, _ in read_events(tmp_path / FILE_NAME) if "epoch" in event]
    assert len(epochs) == len(set(epochs)) == 4 * HORIZON


def test_what_a_trial_with_several_places_takes_of_a_gpu_counts_so_many_times(tmp_path):
    journal = Journal(tmp_path / FILE_NAME)
    journal.trial_started(0, {})
    journal.epoch_ended(0, 1, {"epoch_seconds": 3600.0})
    journal.trial_widened(0, 2)
    journal.epoch_ended(0, 2, {"epoch_seconds": 1800.0})
    for each in (journal, Journal(tmp_path / FILE_NAME)):
        assert each.place_seconds == 3600 + 2 * 1800
        assert each.trials[0].places == 2
        assert Limit(each, Budget(gpu_hours=0.51), gpus=0.25).allows(1)  # a quarter of two hours are spent
        assert not Limit(each, Budget(gpu_hours=0.5), gpus=0.25).allows(1)
