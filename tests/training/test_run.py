"""Trainings that were killed and whose checkpoints were damaged on top, alone and in a search."""

import itertools
import json
import shutil

import pytest
import torch
from trial_worker import trainable

from fer_search.checkpoints import CHECKPOINTS
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import read_events, read_journal, reproducible
from fer_search.training.checkpoint import FILE_NAME as STATE
from fer_search.training.objective import TrainingObjective
from fer_search.training.run import WEIGHTS, train_to_end
from fer_search.training.trainer import Diverged, Trainer

CPU = torch.device("cpu")


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def recipe(small):
    return small.replace({"epochs": 4, "sam_rho": 0.0, "randaugment_magnitude": 0.0})


@pytest.fixture(scope="module")
def whole(recipe, fit, validation, tmp_path_factory):
    directory = tmp_path_factory.mktemp("whole")
    train_to_end(Trainer(recipe, fit, validation, device=CPU), directory)
    return directory


@pytest.fixture(scope="module")
def killed(recipe, fit, validation, tmp_path_factory):
    """Killed when weights and journal of epoch 4 were written and its checkpoint was not."""
    directory = tmp_path_factory.mktemp("killed")
    trainer = Trainer(recipe, fit, validation, device=CPU)
    state_dict, calls = trainer.state_dict, itertools.count(1)

    def killed_at_epoch_4():
        if next(calls) == 4:
            raise Killed
        return state_dict()

    trainer.state_dict = killed_at_epoch_4
    with pytest.raises(Killed):
        train_to_end(trainer, directory)
    return directory


def story(directory):
    (record,) = read_journal(directory / JOURNAL)
    return [reproducible(metrics) for metrics in record.epochs], record.state


def cut(checkpoint):
    file = checkpoint / STATE
    file.write_bytes(file.read_bytes()[:-100])


def flip_a_byte(checkpoint, name=STATE):
    data = bytearray((checkpoint / name).read_bytes())
    data[len(data) // 2] ^= 1
    (checkpoint / name).write_bytes(data)


def empty(checkpoint):
    shutil.rmtree(checkpoint)
    checkpoint.mkdir()


def damage_both(checkpoint):
    flip_a_byte(checkpoint)
    flip_a_byte(checkpoint.with_name("epoch_00002"))


@pytest.mark.parametrize(
    "damage",
    [
        cut,
        flip_a_byte,
        lambda checkpoint: flip_a_byte(checkpoint, "report.json"),
        lambda checkpoint: (checkpoint / STATE).unlink(),
        empty,
        lambda checkpoint: (checkpoint / "report.json").write_text("{"),
        lambda checkpoint: (checkpoint / "report.json").write_text("[]"),
        damage_both,
    ],
    ids=["cut", "flipped byte", "flipped in report", "missing", "empty", "no JSON", "no object", "both"],
)
def test_a_training_whose_newest_checkpoint_is_damaged_ends_as_if_nothing_had_happened(
    recipe, fit, validation, whole, killed, tmp_path, caplog, damage
):
    directory = tmp_path / "run"
    shutil.copytree(killed, directory)
    damage(directory / CHECKPOINTS / "epoch_00003")
    train_to_end(Trainer(recipe, fit, validation, device=CPU), directory)
    assert "epoch_00003 is damaged" in caplog.text
    assert story(directory) == story(whole)
    epochs = [event["epoch"] for event, _ in read_events(directory / JOURNAL) if event["event"] == "epoch_ended"]
    assert epochs == [1, 2, 3, 4]
    assert (directory / WEIGHTS).read_bytes() == (whole / WEIGHTS).read_bytes()
    assert not (directory / CHECKPOINTS).exists()


def test_a_training_that_has_ended_gives_its_choice_again_without_checkpoints(recipe, fit, validation, whole):
    """As after a kill before its figures were written."""
    before = (whole / JOURNAL).read_bytes()
    choice = train_to_end(Trainer(recipe, fit, validation, device=CPU), whole)
    (record,) = read_journal(whole / JOURNAL)
    assert max(record.epochs[choice.epoch - 1][name] for name in ("val_accuracy", "val_accuracy_ema")) == (
        choice.val_accuracy
    )
    assert (whole / JOURNAL).read_bytes() == before


def test_a_training_that_diverged_says_so_again(recipe, fit, validation, tmp_path):
    diverging = recipe.replace({"max_lr": 10.0, "weight_decay": 10.0, "div_factor": 1.0, "ema_decay": 0.0})
    messages = []
    for _ in range(2):
        with pytest.raises(Diverged) as error:
            train_to_end(Trainer(diverging, fit, validation, device=CPU), tmp_path)
        messages.append(str(error.value))
    assert messages[0] == messages[1]
    assert [path.name for path in tmp_path.iterdir()].count(CHECKPOINTS) == 0


def test_a_trial_whose_newest_checkpoint_is_damaged_repeats_its_epoch_bit_for_bit(
    recipe, fit, validation, whole, tmp_path
):
    def trial():
        objective = TrainingObjective(fit, validation, device="cpu", threads=torch.get_num_threads())
        return trainable(0, recipe, objective, tmp_path)

    first = trial()
    for _ in range(3):
        first.step()
    flip_a_byte(tmp_path / "trial_00000" / "epoch_00003")
    second = trial()
    results = [second.step() for _ in range(3)]
    assert [result["epoch"] for result in results] == [2, 3, 4]
    assert [reproducible(result["metrics"]) for result in results] == story(whole)[0][1:]
    report = json.loads((tmp_path / "trial_00000" / "epoch_00004" / "report.json").read_text())["report"]
    assert report["metrics"] == results[-1]["metrics"]
