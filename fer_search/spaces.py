"""Space files against the recipe and the network: everything that a trial would stumble over, before any starts."""

import itertools
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from fer_search.errors import InvalidInput, finding, problem
from fer_search.recipe import Recipe
from fer_search.training.backbone import backbone_problems
from fer_search.training.optimization import check_rise
from fer_search.training.pretrained import initial_model
from fer_search.training.trainer import COMPARABLE_METRICS, num_steps
from fer_search.tuning.space import Space, ends, read_space

# What decides which images a trial learns from and is judged on: results of trials that differ in it do not compare.
SPLIT_FIELDS = ("split_seed", "validation_fraction", "fit_fraction", "drop_test_duplicates")
# What decides whether a network can be built, and whether a training has enough steps.
NETWORK_FIELDS = (
    "backbone", "pretrained", "image_size", "stem_stride", "output_stride", "drop_path", "fusion_width",
    "pyramid_pooling",
)  # fmt: skip
STEP_FIELDS = ("batch_size", "accumulation", "pct_start", "sam_interval")


def check_space(table: Mapping[str, Any], *, source: Path) -> Space:
    """Turn a parsed space file into a checked Space; raises InvalidInput with all its problems."""
    search, domains = (value if isinstance(value, Mapping) else {} for value in map(table.get, ("search", "space")))
    metric = search.get("metric")
    rule = "must not be searched, since all trials must be judged on the same faces"
    problems = [problem(source, f"space.{key}", rule, domains[key]) for key in SPLIT_FIELDS if key in domains]
    if search.get("resource", "epochs") != "epochs":
        problems.append(problem(source, "search.resource", "must be epochs", search["resource"]))
    if problems:
        raise InvalidInput(problems)

    def check(values: Mapping[str, Any]) -> list[str]:
        if problems := Recipe.problems(values):
            return problems
        if metric == "val_accuracy_ema" and values["ema_decay"] == 0:
            return [finding("ema_decay", f"must be above 0, since trials are compared by {metric}", 0.0)]
        return backbone_problems(values["backbone"])

    defaults = Recipe().model_dump()
    return read_space(table, source=source, defaults=defaults, check=check, metrics=COMPARABLE_METRICS)


def check_corners(space: Space, *, num_images: int, source: Path) -> None:
    """Build the network, and count the steps for `num_images`, at every combination of the ends of what decides them.

    Raises InvalidInput with what the first bad combination's trial would have raised.
    """
    start = Recipe.build({**space.parameters, **space.first_point}, source=source)
    for recipe in _corners(space, start, NETWORK_FIELDS):
        initial_model(recipe)
    for recipe in _corners(space, start, STEP_FIELDS):
        check_rise(recipe, num_steps(num_images, recipe))


def _corners(space: Space, start: Recipe, fields: tuple[str, ...]) -> list[Recipe]:
    searched = [key for key in fields if key in space.domains]
    values = itertools.product(*(ends(space.domains[key]) for key in searched))
    return [start.replace(dict(zip(searched, each, strict=True))) for each in values]
