"""A worker of a search without Ray around it."""

from fer_search.tuning.connection import Resources
from fer_search.tuning.objective import ObjectiveTrainable


def trainable(number, recipe, objective, directory):
    """A worker that has the trial `number` of a recipe, with its checkpoints in a directory."""
    found = ObjectiveTrainable.__new__(ObjectiveTrainable)  # Ray's constructor writes to the home directory
    found.config = {"trial": number, "parameters": recipe.model_dump(), "places": 1}
    found.setup(found.config, objective=objective, metric="val_accuracy", checkpoints=directory, resources=Resources())
    return found
