"""Training state on disk: written whole or not at all, read strictly and without running code."""

import io
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import torch

from fer_search.atomic import replacing
from fer_search.data.faces import FER2013, ImageForm
from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe
from fer_search.training.model import build_model

FILE_NAME = "checkpoint.pt"


def save_checkpoint(state: Mapping[str, Any], directory: Path) -> Path:
    """Write `state` (tensors, numbers, strings, dicts, lists) into `directory` and return the file.

    The file appears under its name only when all of it is on the disk, so that a kill in between leaves the one before.
    """
    path = directory / FILE_NAME
    buffer = io.BytesIO()
    torch.save(dict(state), buffer)  # which, given a path, hides from its error that the disk is full
    with replacing(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())
    return path


def load_checkpoint(directory: Path) -> dict[str, Any]:
    """Read what `save_checkpoint` wrote, onto the CPU; `weights_only` keeps a hostile file from running code.

    Raises InvalidInput for a missing or damaged file.
    """
    path = directory / FILE_NAME
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise InvalidInput(problem(path, "file", "must be a readable checkpoint", error.strerror)) from error
    except Exception as error:  # of a damaged file torch raises whatever it trips over
        raise InvalidInput(problem(path, "file", "must be a complete checkpoint", str(error))) from error
    if not isinstance(state, dict):
        raise InvalidInput(problem(path, "file", "must hold a training state", type(state).__name__))
    return state


def checkpoint_bytes(recipe: Recipe, form: ImageForm = FER2013) -> int:
    """Return how large a checkpoint of this recipe's training is, but for some kilobytes, without building anything.

    Raises InvalidInput as `build_model` does.
    """
    with torch.device("meta"):
        model = build_model(recipe, form)
    weights = sum(value.nbytes for value in model.state_dict().values())
    averages = 2 if recipe.optimizer == "adamw" else int(recipe.momentum > 0)
    trained = sum(parameter.nbytes for parameter in model.parameters())
    return int(weights * (1 + (recipe.ema_decay > 0)) + averages * trained)
