"""Space files against the recipe and the network: everything that a trial would stumble over, before any starts."""

from collections.abc import Collection, Mapping
from pathlib import Path
from typing import Any

from fer_search.data.faces import ImageForm
from fer_search.errors import InvalidInput, problem
from fer_search.recipe import Recipe, absent_class_fields, class_problems
from fer_search.space_tables import space_of
from fer_search.training.backbone import backbone_problems
from fer_search.training.checkpoint import checkpoint_bytes
from fer_search.training.optimization import check_rise
from fer_search.training.pretrained import initial_model
from fer_search.training.trainer import num_steps
from fer_search.tuning.space import Space

# What decides whether a network can be built, and whether a training has enough steps.
NETWORK_FIELDS = (
    "backbone", "pretrained", "image_size", "stem_stride", "output_stride", "drop_path", "fusion_width",
    "pyramid_pooling",
)  # fmt: skip
STEP_FIELDS = ("batch_size", "accumulation", "pct_start", "sam_interval")


def check_space(table: Mapping[str, Any], *, source: Path) -> Space:
    """Turn a parsed space file into a Space whose backbones exist; raises InvalidInput with all its problems."""
    return space_of(table, source=source, network_problems=lambda values: backbone_problems(values["backbone"]))


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


def check_soft_label_weight(space: Space, *, soft_labels: Path | None, source: Path) -> None:
    """Raise InvalidInput where trials would weigh soft labels that there are not, or there are some for no trial."""
    field = "soft_label_weight"
    weight = space.complete(space.first_point)[field]
    if soft_labels is None and field in space.searched:
        raise InvalidInput(problem(source, f"space.{field}", "must not be searched without --soft-labels", "a domain"))
    if soft_labels is None and weight > 0:
        raise InvalidInput(problem(source, f"base.{field}", "must be 0 without --soft-labels", weight))
    if soft_labels is not None and field not in space.searched and weight == 0:
        rule = f"must not be given, since it has no effect while {field} is 0"
        raise InvalidInput(problem("command line", "soft-labels", rule, str(soft_labels)))


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
