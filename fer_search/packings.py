"""How many trials of a search are best run at once on a GPU, or on a machine's cores."""

from dataclasses import dataclass, replace

import numpy as np

from fer_search.errors import InvalidInput, problem
from fer_search.races import objective_on
from fer_search.recipe import Recipe
from fer_search.searches import Plan
from fer_search.tuning.connection import Resources, connected
from fer_search.tuning.packing import Packing, best_packing, measure_packings

NUM_STEPS = 16  # between two reports: enough for what is around the steps not to count
SECONDS = 8.0
ENDLESS_EPOCHS = 10_000


@dataclass(frozen=True)
class PackingPlan:
    """What was measured, with reports of so many `images`, and what was `chosen`: the most images a second."""

    packings: list[Packing]
    images: int
    chosen: Packing

    def images_per_second(self, packing: Packing) -> float | None:
        """Return those of all trials together; None where they did not fit into memory."""
        return None if packing.rate is None else packing.rate * self.images


def check_packable(resources: Resources, *, gpus: float | None) -> None:
    """Raise InvalidInput where a command line says what is to be measured; `gpus` are those that it names."""
    problems = []
    if gpus:
        problems.append(problem("command line", "gpus-per-trial", "must not be given beside --pack", gpus))
    if not resources.gpus and resources.cpus != 1:
        rule = "must not be given beside --pack where trials run on CPUs"
        problems.append(problem("command line", "cpus-per-trial", rule, resources.cpus))
    if problems:
        raise InvalidInput(problems)


def measure(plan: Plan, resources: Resources, *, address: str | None) -> PackingPlan:
    """Train the first trial's recipe, on a few of its images, once and several times at once, and choose.

    All the images that a trial holds on a GPU, 2 kB each, are not there meanwhile; what turns out not to fit later gets
    more room.
    """
    recipe = Recipe.build(plan.space.complete(plan.space.first_point))
    effective = recipe.batch_size * recipe.accumulation
    fit, validation = plan.splits.fit, plan.splits.validation
    fit = fit.take(np.arange(min(len(fit), NUM_STEPS * effective)))
    validation = validation.take(np.arange(min(len(validation), effective)))
    interval = min(recipe.sam_interval, max(1, len(fit) // effective))
    endless = recipe.replace({"epochs": ENDLESS_EPOCHS, "restarts": [], "sam_interval": interval})
    splits = replace(plan.splits, fit=fit, validation=validation)
    with connected(address):
        packings = measure_packings(
            lambda each: objective_on(splits, each), endless.model_dump(), resources, seconds=SECONDS
        )
    return PackingPlan(packings, len(fit), best_packing(packings))
