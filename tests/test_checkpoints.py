import os
from dataclasses import dataclass
from pathlib import Path

import pytest

from fer_search.checkpoints import Checkpoints


@dataclass
class Text:
    text: str

    def save(self, directory: Path) -> None:
        (directory / "state.txt").write_text(self.text)


class Broken:
    def save(self, directory: Path) -> None:
        (directory / "state.txt").write_text("half")
        raise OSError("no space left on device")


@pytest.fixture
def checkpoints(tmp_path):
    checkpoints = Checkpoints(tmp_path / "trial")
    for epoch in (1, 2, 3):
        checkpoints.save(epoch, {"score": epoch / 10}, Text(f"after {epoch}"))
    return checkpoints


def test_the_newest_state_comes_back_with_what_its_epoch_reported(checkpoints):
    newest = checkpoints.newest()
    assert (newest.epoch, newest.metrics) == (3, {"score": 0.3})
    assert (newest.directory / "state.txt").read_text() == "after 3"


def test_the_one_before_is_kept_and_no_more(checkpoints):
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["epoch_00002", "epoch_00003"]
    checkpoints.keep(1)
    assert [path.name for path in checkpoints.directory.iterdir()] == ["epoch_00003"]
    checkpoints.remove()
    assert checkpoints.newest() is None


@pytest.mark.parametrize(
    "damage",
    [
        lambda path: (path / "state.txt").write_text("after 4"),
        lambda path: (path / "state.txt").unlink(),
        lambda path: (path / "more.txt").write_text(""),
        lambda path: (path / "report.json").write_text("{"),
        lambda path: (path / "report.json").write_text("[]"),
        lambda path: (path / "report.json").write_text("[" * 100_000),
        lambda path: (path / "report.json").write_text((path / "report.json").read_text().replace("0.3", "0.4")),
        lambda path: (path / "report.json").unlink(),
    ],
)
def test_a_damaged_checkpoint_falls_back_to_the_one_before_with_a_warning(checkpoints, caplog, damage):
    damage(checkpoints.directory / "epoch_00003")
    assert checkpoints.newest().epoch == 2
    assert "epoch_00003 is damaged" in caplog.text
    checkpoints.save(3, {"score": 0.3}, Text("after 3"))  # trained again
    assert checkpoints.newest().epoch == 3


def test_a_checkpoint_is_on_the_disk_before_it_has_its_name(tmp_path, monkeypatch):
    flushed, flush = {}, os.fsync

    def watched(descriptor):
        flush(descriptor)
        flushed[os.fstat(descriptor).st_ino] = (tmp_path / "trial" / "epoch_00001").exists()

    monkeypatch.setattr(os, "fsync", watched)
    Checkpoints(tmp_path / "trial").save(1, {}, Text("after 1"))
    path = tmp_path / "trial" / "epoch_00001"
    assert [flushed[each.stat().st_ino] for each in (path / "state.txt", path / "report.json", path)] == [False] * 3
    assert flushed[path.parent.stat().st_ino]  # the name


def test_what_a_killed_process_had_begun_to_write_is_removed(checkpoints):
    (checkpoints.directory / ".epoch_00004.0123.tmp").mkdir()
    checkpoints.save(4, {}, Text("after 4"))
    assert sorted(path.name for path in checkpoints.directory.iterdir()) == ["epoch_00003", "epoch_00004"]


def test_a_save_that_fails_leaves_what_was_there(checkpoints):
    with pytest.raises(OSError, match="no space"):
        checkpoints.save(4, {"score": 0.4}, Broken())
    assert checkpoints.newest().epoch == 3
    assert len(list(checkpoints.directory.iterdir())) == 2
