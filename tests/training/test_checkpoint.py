import pickle
from pathlib import Path

import pytest
import torch

from fer_search.errors import InvalidInput
from fer_search.training.checkpoint import FILE_NAME, load_checkpoint, save_checkpoint


def test_a_checkpoint_comes_back_as_it_was(tmp_path):
    save_checkpoint({"epoch": 3, "weights": {"a": torch.arange(4.0)}}, tmp_path)
    state = load_checkpoint(tmp_path)
    assert state["epoch"] == 3
    assert torch.equal(state["weights"]["a"], torch.arange(4.0))


def test_a_save_that_fails_leaves_the_checkpoint_before_it_and_no_litter(tmp_path, monkeypatch):
    save_checkpoint({"epoch": 1}, tmp_path)

    def full_disk(path, data):
        with path.open("wb") as file:
            file.write(data[: len(data) // 2])
        raise OSError("No space left on device")

    monkeypatch.setattr(Path, "write_bytes", full_disk)
    with pytest.raises(OSError, match="No space"):
        save_checkpoint({"epoch": 2}, tmp_path)
    monkeypatch.undo()
    assert load_checkpoint(tmp_path) == {"epoch": 1}
    assert [file.name for file in tmp_path.iterdir()] == [FILE_NAME]


@pytest.mark.parametrize("spoil", [lambda data: data[: len(data) // 2], lambda data: b"", lambda data: b"not a zip"])
def test_a_damaged_checkpoint_is_one_clear_error(tmp_path, spoil):
    path = save_checkpoint({"weights": torch.zeros(1000)}, tmp_path)
    path.write_bytes(spoil(path.read_bytes()))
    with pytest.raises(InvalidInput, match="must be a complete checkpoint"):
        load_checkpoint(tmp_path)


def test_a_checkpoint_cannot_run_code(tmp_path):
    class Attack:
        def __reduce__(self):
            return (open, (str(tmp_path / "owned"), "w"))

    torch.save({"weights": Attack()}, tmp_path / FILE_NAME)
    with pytest.raises(InvalidInput):
        load_checkpoint(tmp_path)
    (tmp_path / FILE_NAME).write_bytes(pickle.dumps(Attack()))
    with pytest.raises(InvalidInput):
        load_checkpoint(tmp_path)
    assert not (tmp_path / "owned").exists()
