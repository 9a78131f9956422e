"""The network: a timm backbone made right for one-channel 48x48 faces, and its classifier."""

from typing import Any, cast

import timm
import torch
from torch import Tensor, nn

from fer_search.data.faces import EMOTIONS, IMAGE_SIZE
from fer_search.errors import InvalidInput, finding, nearest_name, problem
from fer_search.recipe import Recipe


class EmotionNet(nn.Module):
    """Faces in [0, 1], shape (N, 1, 48, 48), to logits (N, 7).

    The normalisation to [-1, 1] is part of the network, so that whoever uses the weights cannot get it wrong.
    """

    def __init__(self, backbone: nn.Module) -> None:
        super().__init__()
        self.backbone = backbone

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, 7) of images (N, 1, 48, 48) in [0, 1]."""
        logits: Tensor = self.backbone(images * 2 - 1)
        return logits


def build_model(recipe: Recipe) -> EmotionNet:
    """Build the network of `recipe` on the CPU, its weights drawn from the recipe's seed alone.

    Raises InvalidInput if timm has no such backbone or the backbone cannot take the recipe's settings.
    """
    if found := backbone_problems(recipe.backbone):
        raise InvalidInput([f"recipe: {line}" for line in found])
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(recipe.seed)
        try:
            model = EmotionNet(_build_backbone(recipe)).eval()
            with torch.no_grad():
                model(torch.zeros(1, 1, IMAGE_SIZE, IMAGE_SIZE))
        except (TypeError, AssertionError, RuntimeError, AttributeError, ValueError) as error:
            rule = f"must be a convolutional timm model that takes {IMAGE_SIZE}x{IMAGE_SIZE} faces ({error})"
            raise InvalidInput(problem("recipe", "backbone", rule, recipe.backbone)) from error
    return model.train()


def backbone_problems(name: str) -> list[str]:
    """Return what is wrong with a backbone's name as `backbone: <what must hold>, got <name>`, without building it."""
    if timm.is_model(name):
        return []
    rule = f"must be the name of a timm model{nearest_name(name, timm.list_models())}"
    return [finding("backbone", rule, name)]


def _build_backbone(recipe: Recipe) -> nn.Module:
    backbone: Any = timm.create_model(
        recipe.backbone,
        pretrained=False,
        in_chans=1,
        num_classes=len(EMOTIONS),
        drop_rate=recipe.dropout,
        drop_path_rate=recipe.drop_path,
    )
    first = backbone.pretrained_cfg["first_conv"]
    stem = backbone.get_submodule(first if isinstance(first, str) else first[0])
    # A stem that cuts the image into patches (stride as wide as the kernel) has no stride of its own to choose.
    if not isinstance(stem, nn.Conv2d) or max(stem.kernel_size) > 7 or stem.kernel_size == stem.stride:
        raise ValueError("it does not begin with an ordinary convolution")
    stem.stride = (recipe.stem_stride, recipe.stem_stride)
    return cast(nn.Module, backbone)
