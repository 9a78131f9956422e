"""Trained networks that are asked together: one network whose answer is their weighted mean."""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor, nn

from fer_search.data.faces import FER2013, ImageForm
from fer_search.recipe import Recipe
from fer_search.training.run import load_model


@dataclass(frozen=True)
class Member:
    """A trained network on disk, how often it counts beside others, and the temperature of its answer there."""

    recipe: Recipe
    weights: Path
    count: int = 1
    temperature: float = 1.0


class EnsembleNet(nn.Module):
    """Networks as one: softmax of its output (N, classes) is the weighted mean of their probabilities.

    A member's probabilities are those of softmax(logits / temperature); its weight is its share of all `counts`. It
    stands wherever a network does: views and a temperature of the whole come on top (`PredictionNet`).
    """

    def __init__(self, networks: Sequence[nn.Module], *, counts: Sequence[int], temperatures: Sequence[float]) -> None:
        super().__init__()
        self.members = nn.ModuleList(networks)
        self.log_weights = [math.log(count / sum(counts)) for count in counts]
        self.temperatures = list(temperatures)

    def forward(self, images: Tensor) -> Tensor:
        """Return the logits (N, classes) of images (N, channels, size, size) in [0, 1]."""
        logarithms = [
            (member(images) / temperature).log_softmax(-1) + log_weight
            for member, temperature, log_weight in zip(self.members, self.temperatures, self.log_weights, strict=True)
        ]
        return torch.logsumexp(torch.stack(logarithms), 0)


def load_members(members: Sequence[Member], form: ImageForm = FER2013) -> nn.Module:
    """Return the one network, or all as an EnsembleNet, in evaluation mode on the CPU.

    Raises InvalidInput for weights that are damaged or of another network.
    """
    networks = [load_model(member.recipe, member.weights, form) for member in members]
    if len(networks) == 1:
        return networks[0]
    counts, temperatures = [member.count for member in members], [member.temperature for member in members]
    return EnsembleNet(networks, counts=counts, temperatures=temperatures).eval()
