"""What the campaign would take on this device: every step as a command, and its hours from timed trainings."""

import shlex
from collections.abc import Sequence
from typing import Any

import torch
from campaign_steps import Budget, Step

from fer_search.data.faces import Faces
from fer_search.data.fer2013 import load_faces
from fer_search.recipe import Recipe, parse_overrides
from fer_search.record import split_for
from fer_search.searches import seconds_per_epoch
from fer_search.training.trainer import choose_device

TRIAL = {"sam_rho": 0.05, "randaugment_magnitude": 9.0}
"""Where a trial of the search differs from the default recipe, as far as its speed hangs on it."""
SAME_SPEED = ("epochs", "pretrained", "drop_test_duplicates", "soft_label_weight")
"""The fields that the campaign varies and an epoch's time does not hang on."""


def print_plan(steps: Sequence[Step], budget: Budget, *, data: str) -> None:
    """Print each step with its hours on this device, and what they rest on; a trial Tn is known after the search."""
    device, faces = choose_device(), load_faces(data)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    timed: dict[str, float] = {}
    total = 0.0
    for step in steps:
        recipe, epochs = work(step, budget)
        hours = epochs * _timed(recipe, faces, device, timed) / 3600 if epochs else 0.0
        total += hours
        print(
            f"fer-search {shlex.join(step.words)}  # {hours:.2f} h"
            if epochs
            else f"fer-search {shlex.join(step.words)}"
        )
    print(
        f"\n{total:.1f} hours on {name}, one training at a time, from {len(timed)} recipes timed for a few steps each:"
    )
    for line, seconds in timed.items():
        print(f"  {seconds:8.1f} s an epoch: {line}")
    print(
        "Not in it: the start of processes, the figures after each training, checkpoints. The trials of a search\n"
        "differ in speed; several at once on a GPU (--pack) need less. A race may end after three seeds: counted are\n"
        "all. A step that is left out, as the ensemble's may be, takes nothing."
    )


def work(step: Step, budget: Budget) -> tuple[dict[str, Any], int]:
    """Return by what a step's recipe differs from the default one, and how many epochs of it the step trains."""
    command, *words = step.words
    own = parse_overrides([word for word in words if "=" in word])
    trial = {**parse_overrides(list(budget.base)), **TRIAL}
    rungs = budget.horizon if budget.first_rung is None else budget.first_rung
    match command:
        case "train" if "--recipe" in words:
            return {**trial, **own}, budget.long
        case "train":
            return own, int(own.get("epochs", Recipe().epochs))
        case "search":
            finished = budget.trials if budget.first_rung is None else budget.trials // 3
            return trial, budget.trials * rungs + finished * (budget.horizon - rungs)
        case "race":
            entrants, seeds = budget.race
            return trial, (entrants + 1) * seeds * budget.horizon
        case "retrain":
            return trial, budget.long * (1 if "--trial" in words else budget.seeds)
        case "label-noise":
            return trial, budget.folds * budget.horizon
    return {}, 0


def _timed(changes: dict[str, Any], faces: Faces, device: torch.device, timed: dict[str, float]) -> float:
    """Return the seconds of an epoch of the default recipe with these changes, timed once for each kind of network."""
    deciding = {key: value for key, value in sorted(changes.items()) if key not in SAME_SPEED}
    line = " ".join(f"{key}={value}" for key, value in deciding.items()) or "the default recipe"
    if line not in timed:
        recipe = Recipe().replace({**deciding, "pretrained": False})
        timed[line] = seconds_per_epoch(recipe, split_for(faces, recipe), device=device)
    return timed[line]
