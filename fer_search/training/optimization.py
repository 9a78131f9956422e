"""The optimizer and the learning rate schedule of a recipe."""

from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

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
        return torch.optim.AdamW(ordered, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(ordered, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> OneCycleLR:
    """Build OneCycle (Smith and Topin 2018) over all optimizer steps of the recipe, each group up to its own rate;
    momentum stays as it is.

    Raises InvalidInput as `check_rise` does.
    """
    check_rise(recipe, steps_per_epoch)
    return OneCycleLR(
        optimizer,
        max_lr=[group["lr"] for group in optimizer.param_groups],
        total_steps=recipe.epochs * steps_per_epoch,
        pct_start=recipe.pct_start,
        div_factor=recipe.div_factor,
        final_div_factor=recipe.final_div_factor,
        cycle_momentum=False,
    )


def check_rise(recipe: Recipe, steps_per_epoch: int) -> None:
    """Raise InvalidInput when the run is too short for OneCycle's rising part, where torch would divide by zero."""
    total_steps = recipe.epochs * steps_per_epoch
    if recipe.pct_start * total_steps <= 1:
        rule = f"must cover more than one of the run's {total_steps} optimizer steps"
        raise InvalidInput(problem("recipe", "pct_start", rule, recipe.pct_start))
