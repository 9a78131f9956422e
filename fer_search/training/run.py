"""A training that is carried to its end, on disk: it survives a kill and keeps the weights that validation chose."""

import json
import logging
from dataclasses import asdict, dataclass
from pathlib import Path

from safetensors import SafetensorError, safe_open
from safetensors.torch import load_file, save
from torch import nn

from fer_search.atomic import replacing
from fer_search.checkpoints import CHECKPOINTS, Checkpoints
from fer_search.data.faces import FER2013, ImageForm
from fer_search.errors import InvalidInput, problem
from fer_search.files import MOST_MODEL_BYTES, check_file
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal
from fer_search.recipe import Recipe
from fer_search.training.memory import half
from fer_search.training.model import build_model
from fer_search.training.trainer import Diverged, Trainer

logger = logging.getLogger(__name__)

WEIGHTS = "weights.safetensors"


@dataclass(frozen=True)
class Choice:
    """The weights of a training that did best on the validation faces."""

    epoch: int
    kind: str  # raw, or ema for the averaged weights
    val_accuracy: float


def train_to_end(trainer: Trainer, directory: Path) -> Choice:
    """Run all epochs that are left, from the newest undamaged checkpoint in `directory` if there is one.

    Writes the best weights so far, journal and checkpoint there after every epoch. The order makes a kill at any moment
    harmless: what is written before the checkpoint is written again, with the same content, by the epoch's repetition.
    A training that has ended needs its checkpoints no more. Where memory does not suffice, the training goes on with
    half the micro-batch; raises MemoryError where there is no smaller one, and Diverged.
    """
    journal = Journal(directory / JOURNAL)
    checkpoints = Checkpoints(directory / CHECKPOINTS)
    journal.trial_started(0, trainer.recipe.model_dump())
    size = trainer.micro_batch_size
    while not journal.trials[0].ended:
        try:
            if size < trainer.micro_batch_size:
                trainer.restart(size)
            if last := checkpoints.newest():
                trainer.resume(last.directory)
            _run(trainer, directory, journal, checkpoints)
        except MemoryError as error:
            message = str(error)
        else:
            break
        smaller = half(trainer.micro_batch_size)
        if smaller is None:
            raise MemoryError(f"the training does not fit, not even with the smallest micro-batch: {message}")
        logger.warning("%s: out of memory, goes on with micro-batches of %d images", directory, smaller)
        size = smaller
    checkpoints.remove()
    if journal.trials[0].state == "FAIL":
        raise Diverged(journal.trials[0].message)
    choice = read_choice(directory)
    assert choice is not None, "a recipe has at least one epoch"
    return choice


def _run(trainer: Trainer, directory: Path, journal: Journal, checkpoints: Checkpoints) -> None:
    """Run all epochs that are left, and record how the training ended."""
    choice = read_choice(directory)
    try:
        for report in trainer:
            for kind, metric in (("raw", "val_accuracy"), ("ema", "val_accuracy_ema")):
                accuracy = report.metrics.get(metric, -1.0)
                if choice is None or accuracy > choice.val_accuracy:
                    choice = Choice(trainer.epoch, kind, accuracy)
                    _write_weights(trainer, choice, directory)
            journal.epoch_ended(0, trainer.epoch, report.metrics)
            checkpoints.save(trainer.epoch, report.metrics, report)
        journal.trial_ended(0, "COMPLETE")
    except Diverged as error:
        journal.trial_ended(0, "FAIL", str(error))


def read_choice(directory: Path) -> Choice | None:
    """Return what is known of the weights in `directory`, or None if there are none yet."""
    path = directory / WEIGHTS
    if not path.exists():
        return None
    with safe_open(path, framework="pt") as file:
        return Choice(**json.loads(file.metadata()["choice"]))


def load_model(recipe: Recipe, weights: Path, form: ImageForm = FER2013) -> nn.Module:
    """Build the recipe's network with the weights of a safetensors file, in evaluation mode on the CPU."""
    check_file(weights, most_bytes=MOST_MODEL_BYTES)
    model = build_model(recipe, form)
    try:
        model.load_state_dict(load_file(weights))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise InvalidInput(problem(weights, "file", "must be weights of the recipe's network", str(error))) from error
    return model.eval()


def _write_weights(trainer: Trainer, choice: Choice, directory: Path) -> None:
    with replacing(directory / WEIGHTS) as temporary:
        temporary.write_bytes(save(trainer.weights(choice.kind), {"choice": json.dumps(asdict(choice))}))
