"""The optimizer and the learning rate schedule of a recipe."""

import itertools
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler, OneCycleLR, SequentialLR

from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe
from fer_search.training.model import EmotionNet

BACKBONE = "backbone."


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the base optimizer over up to four groups: the heads' parameters and then the backbone's, without and with
    weight decay.

    Norms, biases, other vectors and what the model names in `no_weight_decay` get none, since there it does not act as
    a regulariser. The backbone's share of the learning rate is in its groups.
    """
    exempt = model.no_weight_decay() if isinstance(model, EmotionNet) else set()
    groups: dict[tuple[bool, bool], dict[str, Any]] = {}
    for name, parameter in model.named_parameters():
        key = name.startswith(BACKBONE), parameter.ndim > 1 and name not in exempt
        scale = recipe.backbone_lr_scale if key[0] else 1.0
        decay = recipe.weight_decay if key[1] else 0.0
        group = groups.setdefault(key, {"params": [], "lr": recipe.max_lr * scale, "weight_decay": decay})
        group["params"].append(parameter)
    ordered = [groups[key] for key in sorted(groups)]
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(ordered, betas=(recipe.momentum, 0.999), fused=True)
    return torch.optim.SGD(ordered, momentum=recipe.momentum, nesterov=recipe.momentum > 0, fused=True)


def place_optimizer(optimizer: torch.optim.Optimizer, device: torch.device) -> None:
    """Let `optimizer` step as it has to on `device`: on a GPU with learning rates in tensors, which a CUDA graph reads.

    To be called when the schedule has been built, and whenever a state has been loaded: that brings along how the one
    stepped which was saved, on whatever device.
    """
    for group in optimizer.param_groups:
        rate = float(group["lr"])
        group["lr"] = torch.tensor(rate, device=device) if device.type == "cuda" else rate
        group["fused"] = True
        if "capturable" in group:
            group["capturable"] = device.type == "cuda"


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> SequentialLR:
    """Build OneCycle (Smith and Topin 2018) over all optimizer steps of the recipe, each group up to its own rate;
    momentum stays as it is. With restarts it is a whole OneCycle up to each of them, and one from the last to the end.

    Raises InvalidInput as `check_rise` does.
    """
    check_rise(recipe, steps_per_epoch)
    peaks = [group["lr"] for group in optimizer.param_groups]  # a schedule changes them as it is built
    cycles: list[LRScheduler] = [
        OneCycleLR(
            optimizer,
            max_lr=peaks,
            total_steps=epochs * steps_per_epoch,
            pct_start=recipe.pct_start,
            div_factor=recipe.div_factor,
            final_div_factor=recipe.final_div_factor,
            cycle_momentum=False,
        )
        for epochs in _cycles(recipe)
    ]
    return SequentialLR(optimizer, cycles, milestones=[epoch * steps_per_epoch for epoch in recipe.restarts])


def check_rise(recipe: Recipe, steps_per_epoch: int) -> None:
    """Raise InvalidInput when a cycle is too short for OneCycle's rising part, where torch would divide by zero."""
    num_steps = min(_cycles(recipe)) * steps_per_epoch
    if recipe.pct_start * num_steps <= 1:
        whole = "shortest cycle" if recipe.restarts else "run"
        rule = f"must cover more than one of the {whole}'s {num_steps} optimizer steps"
        raise InvalidInput(problem("recipe", "pct_start", rule, recipe.pct_start))


def _cycles(recipe: Recipe) -> list[int]:
    """Return the epochs that each OneCycle of the recipe takes."""
    return [end - start for start, end in itertools.pairwise((0, *recipe.restarts, recipe.epochs))]
