"""Disks that are full or read-only, as the user of the command line meets them."""

import errno
import threading

import pytest

from fer_search.data.synthetic import synthesize
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import read_events
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.retraining import _train_at_once
from fer_search.tuning.connection import Resources

TRAIN = ("train", "--name", "t", "epochs=3", "backbone=test_resnet", "pretrained=false", "fit_fraction=0.05")


def epochs(journal):
    return [event["epoch"] for event, _ in read_events(journal) if event["event"] == "epoch_ended"]


def test_a_training_goes_on_once_a_full_disk_has_room_again(fer_search, disk, with_stores):
    runs = with_stores(disk.path / "runs")
    journal = runs / "t" / JOURNAL

    def fill_after_the_first_epoch():
        while not epochs(journal) and not over.wait(0.001):
            pass
        disk.fill()

    over = threading.Event()
    disk.fill()
    at_the_start = fer_search(*TRAIN, "--runs", runs)
    disk.mend()
    thread = threading.Thread(target=fill_after_the_first_epoch)
    thread.start()
    on_the_way = fer_search(*TRAIN, "--runs", runs)
    over.set()
    thread.join()
    for done in (at_the_start, on_the_way):
        assert done.returncode == 1
        assert f"error: {runs}" in done.stderr
        assert "No space left on device" in done.stderr
        assert "to go on: the same command" in done.stderr
        assert "Traceback" not in done.stderr
    disk.mend()
    assert fer_search(*TRAIN, "--runs", runs).returncode == 0
    assert epochs(journal) == [1, 2, 3]


def test_a_run_in_a_directory_that_is_not_writable_is_one_clear_error(fer_search, disk):
    disk.make_read_only()
    done = fer_search(*TRAIN, "--runs", disk.path / "runs")
    assert done.returncode == 2
    assert done.stderr == (
        f"error: {disk.path}/runs/t: run: must be in a writable directory, got 'Read-only file system'\n"
    )


def test_a_worker_of_a_long_training_that_cannot_write_says_which_file_and_why(disk, cluster):
    recipe = Recipe().replace({"backbone": "test_resnet", "pretrained": False, "fit_fraction": 0.05})
    disk.make_read_only()
    with pytest.raises(OSError, match="Read-only") as error:
        _train_at_once({0: (recipe, disk.path / "t", {})}, split_for(synthesize(400), recipe), Resources())
    assert (error.value.errno, error.value.filename) == (errno.EROFS, str(disk.path / "t"))
