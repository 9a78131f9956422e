"""What the network of a recipe consists of, and what each part costs."""

from dataclasses import dataclass

import torch
from torch import nn
from torch.nn.attention import SDPBackend, sdpa_kernel
from torch.utils.flop_counter import FlopCounterMode

from fer_search.data.faces import FER2013, ImageForm
from fer_search.recipe import Recipe
from fer_search.training.model import build_model


@dataclass(frozen=True)
class Part:
    """A part of the network; FLOPs are those of predicting one face: a multiplication and an addition are 2."""

    name: str
    num_parameters: int
    flops: int


@dataclass(frozen=True)
class ModelSummary:
    """The parts of a network, and (channels, height, width) of the maps that its backbone gives."""

    parts: list[Part]
    maps: list[tuple[int, int, int]]

    @property
    def total(self) -> Part:
        """The whole network."""
        return Part("total", sum(p.num_parameters for p in self.parts), sum(p.flops for p in self.parts))


def summarize(recipe: Recipe, form: ImageForm = FER2013) -> ModelSummary:
    """Return the parts that the recipe switches on, in the order in which a face passes through them.

    Heads that only training uses cost no FLOPs here. Raises InvalidInput as `build_model` does.
    """
    model = build_model(recipe, form).eval()
    # The counter does not see into torch's fused attention.
    with FlopCounterMode(display=False) as counter, sdpa_kernel(SDPBackend.MATH), torch.no_grad():
        model(torch.zeros(1, form.channels, form.size, form.size))
    counts = counter.get_flop_counts()
    parts = []
    for name, part in model.named_children():
        called = [f"{name}.{index}" for index in range(len(part))] if isinstance(part, nn.ModuleList) else [name]
        flops = sum(sum(counts.get(f"{type(model).__name__}.{path}", {}).values()) for path in called)
        parts.append(Part(name, sum(parameter.numel() for parameter in part.parameters()), flops))
    return ModelSummary([part for part in parts if part.num_parameters], model.backbone.shapes)
