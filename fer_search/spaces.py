"""Space files against the recipe and the network: everything that a trial would stumble over, before any starts."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fer_search.costs import COST_FIELDS, COSTS
from fer_search.data.faces import ImageForm
from fer_search.errors import InvalidInput, finding, problem
from fer_search.recipe import Recipe, absent_class_fields, class_problems
from fer_search.training.backbone import backbone_problems
from fer_search.training.checkpoint import checkpoint_bytes
from fer_search.training.optimization import check_rise
from fer_search.training.pretrained import initial_model
from fer_search.training.trainer import COMPARABLE_METRICS, num_steps
from fer_search.tuning.space import Space
from fer_search.tuning.space_file import read_space

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

    def check(values: Mapping[str, Any]) -> list[str]:
        if problems := Recipe.problems(values):
            return problems
        if metric == "val_accuracy_ema" and values["ema_decay"] == 0:
            return [finding("ema_decay", f"must be above 0, since trials are compared by {metric}", 0.0)]
        return backbone_problems(values["backbone"])

    defaults = Recipe().model_dump()
    try:
        space = read_space(
            table,
            source=source,
            defaults=defaults,
            check=check,
            metrics=COMPARABLE_METRICS,
            costs=COSTS,
            cost_fields=COST_FIELDS,
        )
    except InvalidInput as error:
        problems += error.problems
    if problems:
        raise InvalidInput(problems)
    return space


def check_classes(space: Space, classes: Collection[str], *, source: Path) -> None:
    """Raise InvalidInput where settings are about a class that the data has not, while RandAugment is on or searched.

    What trials have beside a `randaugment_probability` that is searched has no effect, so only that of the first trial,
    which is the space's own, must be equal to it.
    """
    parameters = space.complete(space.first_point)
    if "randaugment_magnitude" in space.searched:
        parameters["randaugment_magnitude"] = 1.0
    absent = absent_class_fields(classes)
    problems = [
        problem(source, f"space.{key}", f"must not be searched, since the data has no class {name!r}", "a domain")
        for key, name in absent.items()
        if key in space.searched
    ]
    found = class_problems(parameters, classes)
    problems += [f"{source}: base.{line}" for line in found if line.partition(":")[0] not in space.searched]
    if problems:
        raise InvalidInput(problems)


def check_corners(space: Space, form: ImageForm, *, num_images: int, source: Path) -> None:
    """Build the network for images of this `form`, and count the steps for `num_images`, at every combination of the
    ends of what decides them.

    Raises InvalidInput with what the first bad combination's trial would have raised.
    """
    for recipe in _corners(space, NETWORK_FIELDS, source):
        initial_model(recipe, form)
    for recipe in _corners(space, STEP_FIELDS, source):
        check_rise(recipe, num_steps(num_images, recipe))


def largest_checkpoint(space: Space, form: ImageForm) -> int:
    """Return the bytes of the largest checkpoint at the ends of what decides the network and the optimizer."""
    return max(
        checkpoint_bytes(recipe, form) for recipe in _corners(space, (*NETWORK_FIELDS, "optimizer"), Path("space"))
    )


def _corners(space: Space, fields: tuple[str, ...], source: Path) -> list[Recipe]:
    """Return a recipe for each combination of values of `fields`: what decides on these may differ in vain."""
    found: dict[tuple[Any, ...], dict[str, Any]] = {}
    for point in space.corners(fields):
        values = space.complete(point)
        found.setdefault(tuple(values[key] for key in fields), values)
    return [Recipe.build(values, source=source) for values in found.values()]
