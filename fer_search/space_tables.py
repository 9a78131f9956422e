"""A space file's table against the recipe: all that it takes to know a space that was checked when its search began."""

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fer_search.costs import COST_FIELDS, COSTS
from fer_search.errors import InvalidInput, finding, problem
from fer_search.recipe import Recipe
from fer_search.tuning.space import Space
from fer_search.tuning.space_file import read_space

# What decides which images a trial learns from and is judged on: results of trials that differ in it do not compare.
SPLIT_FIELDS = ("split_seed", "validation_fraction", "fit_fraction", "drop_test_duplicates")
COMPARABLE_METRICS = ("val_accuracy", "val_accuracy_ema", "val_macro_f1")
"""What an epoch reports that is better when it is larger."""


def space_of(
    table: Mapping[str, Any], *, source: Path, network_problems: Callable[[Mapping[str, Any]], list[str]] | None = None
) -> Space:
    """Turn a parsed space file into a Space; raises InvalidInput with all its problems.

    `network_problems` says what else is wrong with a recipe at the ends of the space.
    """
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
        return [] if network_problems is None else network_problems(values)

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
