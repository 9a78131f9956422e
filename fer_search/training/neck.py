"""What stands between the backbone's maps and the heads: cross-scale fusion, attention, pooling over grids.

Each part is on or off by the recipe. Attention is added to its input instead of multiplied into it, so that a part
that has learned nothing yet does not shrink what the backbone knows.
"""

import torch
import torch.nn.functional as F
from timm.layers import Attention, ConvNormAct, SEModule, SeparableConvNormAct
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn
from torch import Tensor, nn

from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe

HEAD_DIM = 32
PYRAMID_GRIDS = (1, 2, 3)
PYRAMID_WIDTH = 64


class CrossScaleFusion(nn.Module):
    """Maps of several strides to as many of one width, each knowing all others.

    One layer of a bidirectional feature pyramid with fast normalised weights (Tan et al. 2020,
    https://arxiv.org/abs/1911.09070): first from coarse to fine, then back.
    """

    def __init__(self, channels: list[int], width: int) -> None:
        super().__init__()
        steps = len(channels) - 1
        self.lateral = nn.ModuleList(ConvNormAct(num, width, kernel_size=1, apply_act=False) for num in channels)
        self.top_down = nn.ModuleList(SeparableConvNormAct(width, width) for _ in range(steps))
        self.bottom_up = nn.ModuleList(SeparableConvNormAct(width, width) for _ in range(steps))
        self.top_down_weights = nn.Parameter(torch.ones(steps, 2))
        self.bottom_up_weights = nn.Parameter(torch.ones(steps, 3))

    def forward(self, maps: list[Tensor]) -> list[Tensor]:
        """Return the fused maps, in the order and with the sizes of `maps`, the finest first."""
        lateral = [layer(one) for layer, one in zip(self.lateral, maps, strict=True)]
        downward = [lateral[-1]]
        for step in reversed(range(len(self.top_down))):
            mixed = _weighted([lateral[step], _resize(downward[0], lateral[step])], self.top_down_weights[step])
            downward.insert(0, self.top_down[step](mixed))
        fused = [downward[0]]
        for step, layer in enumerate(self.bottom_up):
            coarse = lateral[step + 1], downward[step + 1]
            mixed = _weighted([*coarse, _resize(fused[-1], coarse[0])], self.bottom_up_weights[step])
            fused.append(layer(mixed))
        return fused


class MapAttention(nn.Module):
    """The attention that the recipe switches on, one after the other, on one map (N, C, H, W)."""

    def __init__(self, recipe: Recipe, channels: int, height: int, width: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        if recipe.se_attention:
            layers.append(SEModule(channels))
        if recipe.cbam_attention:
            layers.append(CbamModule(channels))
        if recipe.coordinate_attention:
            layers.append(CoordAttn(channels))
        if recipe.self_attention_heads:
            layers.append(MapSelfAttention(channels, height, width, recipe.self_attention_heads))
        self.layers = nn.ModuleList(layers)

    def forward(self, features: Tensor) -> Tensor:
        """Return the refined map, shaped as it came."""
        for layer in self.layers:
            features = features + layer(features)
        return features


class MapSelfAttention(nn.Module):
    """Multi-head self attention between the cells of a map, which are told apart by a learned position."""

    def __init__(self, channels: int, height: int, width: int, num_heads: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.zeros(height * width, channels))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.norm = nn.LayerNorm(channels)
        self.attention = Attention(channels, num_heads=num_heads, attn_head_dim=HEAD_DIM)

    def forward(self, features: Tensor) -> Tensor:
        """Return what each cell of (N, C, H, W) takes from the others."""
        cells = features.flatten(2).transpose(1, 2)
        mixed: Tensor = self.attention(self.norm(cells) + self.position)
        return mixed.transpose(1, 2).reshape(features.shape)


class PyramidPooling(nn.Module):
    """Means over grids of 1, 2 and 3 cells a side (He et al. 2014, https://arxiv.org/abs/1406.4729): a face is aligned,
    so where something is seen tells as much as what. Raises InvalidInput for a map of fewer cells.
    """

    num_features = PYRAMID_WIDTH * sum(grid**2 for grid in PYRAMID_GRIDS)

    def __init__(self, channels: int, height: int, width: int) -> None:
        super().__init__()
        if min(height, width) < max(PYRAMID_GRIDS):
            rule = f"must be false for a map of {height} x {width} cells (fusion_width above 0 pools a finer one)"
            raise InvalidInput(problem("recipe", "pyramid_pooling", rule, True))
        self.reduce = ConvNormAct(channels, PYRAMID_WIDTH, kernel_size=1)

    def forward(self, features: Tensor) -> Tensor:
        """Return the features (N, num_features) of a map (N, C, H, W)."""
        reduced = self.reduce(features)
        return torch.cat([F.adaptive_avg_pool2d(reduced, grid).flatten(1) for grid in PYRAMID_GRIDS], 1)


def _weighted(maps: list[Tensor], weights: Tensor) -> Tensor:
    positive = F.relu(weights)
    shares = positive / (positive.sum() + 1e-4)
    return torch.stack([share * one for share, one in zip(shares.unbind(), maps, strict=True)]).sum(0)


def _resize(features: Tensor, like: Tensor) -> Tensor:
    if features.shape[2:] == like.shape[2:]:
        return features
    return F.interpolate(features, size=like.shape[2:], mode="bilinear", align_corners=False)
