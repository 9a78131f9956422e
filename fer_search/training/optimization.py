"""The optimizer and the learning rate schedule of a recipe."""

import torch
from timm.optim import param_groups_weight_decay
from torch import nn
from torch.optim.lr_scheduler import OneCycleLR

from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe


def build_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """Build the base optimizer; norms and biases get no weight decay, since there it does not act as a regulariser."""
    groups = param_groups_weight_decay(model, weight_decay=recipe.weight_decay)
    if recipe.optimizer == "adamw":
        return torch.optim.AdamW(groups, lr=recipe.max_lr, betas=(recipe.momentum, 0.999))
    return torch.optim.SGD(groups, lr=recipe.max_lr, momentum=recipe.momentum, nesterov=recipe.momentum > 0)


def build_schedule(optimizer: torch.optim.Optimizer, recipe: Recipe, steps_per_epoch: int) -> OneCycleLR:
    """Build OneCycle (Smith and Topin 2018) over all optimizer steps of the recipe; momentum stays as it is.

    Raises InvalidInput when the run is too short for its rising part, where torch would divide by zero.
    """
    total_steps = recipe.epochs * steps_per_epoch
    if recipe.pct_start * total_steps <= 1:
        rule = f"must cover more than one of the run's {total_steps} optimizer steps"
        raise InvalidInput(problem("recipe", "pct_start", rule, recipe.pct_start))
    return OneCycleLR(
        optimizer,
        max_lr=recipe.max_lr,
        total_steps=total_steps,
        pct_start=recipe.pct_start,
        div_factor=recipe.div_factor,
        final_div_factor=recipe.final_div_factor,
        cycle_momentum=False,
    )
