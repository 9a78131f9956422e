"""The timm network below the heads: made right for the images' channels, cut open where its maps are needed."""

from itertools import pairwise
from typing import Any, cast

import timm
import torch
from timm.layers import DropPath
from torch import Tensor, nn

from fer_search.errors import InvalidInput, finding, nearest_name, problem
from fer_search.recipe import Recipe

NUM_EARLIER_MAPS = 2


class Backbone(nn.Module):
    """A headless timm network: images (N, C, H, W) to its final map and the two maps of the strides before it.

    `shapes` are (channels, height, width) of the three maps, the finest first, for images of `image_size`.
    """

    def __init__(self, network: nn.Module, channels: int, image_size: int) -> None:
        super().__init__()
        self.network = network
        num_maps = len(cast(Any, network).feature_info)
        self.indices = list(range(num_maps - 1 - NUM_EARLIER_MAPS, num_maps - 1))
        with torch.no_grad():
            maps = self(torch.zeros(1, channels, image_size, image_size))
        self.shapes: list[tuple[int, int, int]] = [(m.shape[1], m.shape[2], m.shape[3]) for m in maps]

    def forward(self, images: Tensor) -> list[Tensor]:
        """Return three maps (N, C, h, w), the finest first: of the two strides before the last, and the final one."""
        network: Any = self.network
        final, earlier = network.forward_intermediates(images, indices=self.indices, output_fmt="NCHW")
        return [*earlier, final]


def build_backbone(recipe: Recipe, channels: int) -> Backbone:
    """Build the backbone for images of so many channels, with random weights.

    Raises what timm and torch raise, or ValueError, where the named network cannot be what the recipe asks for, and
    InvalidInput where it is a setting of the recipe that this network does not have.
    """
    network = _create(recipe, channels)
    if not hasattr(network, "forward_intermediates") or len(network.feature_info) <= NUM_EARLIER_MAPS:
        raise ValueError("it does not give its intermediate maps")
    first = network.pretrained_cfg["first_conv"]
    stem = network.get_submodule(first if isinstance(first, str) else first[0])
    # A stem that cuts the image into patches (stride as wide as the kernel) has no stride of its own to choose.
    if not isinstance(stem, nn.Conv2d) or max(stem.kernel_size) > 7 or stem.kernel_size == stem.stride:
        raise ValueError("it does not begin with an ordinary convolution")
    stem.stride = (recipe.stem_stride, recipe.stem_stride)
    blank = torch.zeros(1, channels, recipe.image_size, recipe.image_size)
    active = _find_active_drop_path(network, blank)
    if not active and recipe.drop_path not in (0.0, Recipe.model_fields["drop_path"].default):
        raise _without(recipe, "drop_path", 0.0)
    _drop_unused_layers(network, blank)
    backbone = Backbone(network, channels, recipe.image_size)
    shapes = backbone.shapes
    if shapes[-1][0] != network.num_features or any(fine[1] < coarse[1] for fine, coarse in pairwise(shapes)):
        raise ValueError(f"its maps are {shapes}")
    return backbone


def _create(recipe: Recipe, channels: int) -> Any:
    """Create timm's network, without stochastic depth where it has none."""
    settings: dict[str, Any] = {"output_stride": recipe.output_stride} if recipe.output_stride < 32 else {}
    depth = {"drop_path_rate": recipe.drop_path} if recipe.drop_path > 0 else {}
    try:
        return timm.create_model(recipe.backbone, in_chans=channels, num_classes=0, **settings, **depth)
    except (TypeError, AssertionError, NotImplementedError) as error:
        if "drop_path_rate" in str(error):
            return _create(recipe.replace({"drop_path": 0.0}), channels)
        if settings:
            raise _without(recipe, "output_stride", 32) from error
        raise


def _without(recipe: Recipe, key: str, value: float) -> InvalidInput:
    rule = f"must be {value} for {recipe.backbone}, which does not have it"
    return InvalidInput(problem("recipe", key, rule, getattr(recipe, key)))


def _find_active_drop_path(network: Any, images: Tensor) -> bool:
    """Return whether stochastic depth has something to drop: a block can hold it without the skip that it needs."""
    used: list[bool] = []
    hooks = [
        m.register_forward_hook(lambda *_: used.append(True)) for m in network.modules() if isinstance(m, DropPath)
    ]
    with torch.no_grad():
        network.eval().forward_features(images)
    for hook in hooks:
        hook.remove()
    return bool(used)


def _drop_unused_layers(network: Any, images: Tensor) -> None:
    """Drop what some networks have between pooling and classifier: here it would never be trained."""
    with torch.enable_grad():
        network.eval().forward_features(images).sum().backward()
    if any(parameter.grad is None for parameter in network.parameters()):
        network.prune_intermediate_layers([len(network.feature_info) - 1], prune_norm=False, prune_head=True)
    network.zero_grad(set_to_none=True)


def backbone_problems(name: str) -> list[str]:
    """Return what is wrong with a backbone's name as `backbone: <what must hold>, got <name>`, without building it."""
    if timm.is_model(name):
        return []
    rule = f"must be the name of a timm model{nearest_name(name, timm.list_models())}"
    return [finding("backbone", rule, name)]


def normalisation(backbone: Backbone, channels: int) -> tuple[list[float], list[float]]:
    """Return the mean and deviation of each channel, grey or a colour, in the images that the network's published
    weights were made for.
    """
    config = cast(Any, backbone.network).pretrained_cfg
    colours = (list(config[key]) for key in ("mean", "std"))
    mean, std = (values if channels == len(values) else [sum(values) / len(values)] for values in colours)
    return mean, std
