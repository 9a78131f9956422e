"""What a person reads when choosing among what was trained: accuracy against cost, seeds, and whether ranks hold."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fer_search.costs import COSTS
from fer_search.report import new_table, percent

if TYPE_CHECKING:
    from fer_search.tradeoffs import Tradeoff


def tradeoffs_table(rows: Sequence["Tradeoff"], *, metric: str, cost: str) -> Table:
    """Return the trials by their cost, those on the Pareto front marked."""
    table = new_table("accuracy against cost")
    for heading in ("trial", "front", COSTS[cost].label, metric):
        table.add_column(heading, justify="right", no_wrap=True)
    for row in rows:
        style = None if row.on_front else "dim"
        table.add_row(
            str(row.trial), "*" if row.on_front else "", _cost(row.cost, cost), percent(row.value), style=style
        )
    return table


def tradeoffs_note(cost: str, *, name: str) -> str:
    """Return what the table of costs must be read with."""
    return (
        "* on the front: no trial is better in one and no worse in the other. The values are as noisy as in the "
        f"leaderboard.\n{COSTS[cost].note}\nTo train one for long: fer-search retrain {name} --trial N"
    )


def seeds_table(seeds: Mapping[str, Any]) -> Table:
    """Return the accuracies of a training's seeds, their means with intervals, and which seed is exported."""
    caption = (
        "* the seed that export takes: the best on search-validation, with the views that search-validation chose.\n"
        "Mean and interval are about seeds alone; another set of images would move them too. "
        "The interval is too narrow for few seeds, and there is none below three."
    )
    table = new_table("seeds", caption=caption)
    names = list(seeds["splits"])
    for heading in ("seed", *names):
        table.add_column(heading, justify="right", no_wrap=True)
    for each in seeds["trainings"]:
        table.add_row(f"{each['seed']}{'*' if each['exported'] else ''}", *(f"{each[name]:.2%}" for name in names))
    table.add_section()
    found = [seeds["splits"][name] for name in names]
    table.add_row("mean", *(f"{each['mean']:.2%}" for each in found))
    deviations = ["" if each["deviation"] is None else f"{each['deviation'] * 100:.2f}" for each in found]
    table.add_row("deviation", *deviations)
    table.add_row("95 % interval", *(_range(each["interval"]) for each in found))
    return table


def adjustment_line(prediction: Mapping[str, Any]) -> str | None:
    """Return the logit adjustment that a training's prediction has; None where it has none."""
    if not prediction.get("tau"):
        return None
    test = f"exact McNemar p = {prediction['tau_p']:.2g} on search-validation"
    return f"logit adjustment: logits minus {prediction['tau']:+.1f} * log(share of the class) ({test})"


def agreement_line(found: Mapping[str, Any], *, name: str) -> str:
    """Return whether the order of the trials in the search is that of their long trainings."""
    agreement, count, epochs = found["agreement"], len(found["long"]), found["epochs"]
    if agreement is None:
        were = "one configuration was" if count == 1 else f"{count} configurations were"
        return (
            f"{were} trained long ({epochs} epochs); rank agreement with the search needs three "
            f"(fer-search retrain {name} --trial N --epochs {epochs})"
        )
    about = f"rank agreement of {count} configurations, {found['short_from']} against {epochs} epochs"
    if agreement["tau"] is None:
        return f"{about}: none, since all values of one side are equal"
    interval = agreement["interval"]
    shown = "no interval below five" if interval is None else f"95 % interval {interval[0]:.2f} to {interval[1]:.2f}"
    return f"{about}: Kendall's tau {agreement['tau']:.2f} ({shown}, p = {agreement['p_value']:.2g})"


def _cost(value: float, cost: str) -> str:
    return {"parameters": f"{value:,.0f}", "flops": f"{value / 1e6:,.1f}", "latency": f"{value:.2f}"}[cost]


def _range(interval: tuple[float, float] | None) -> str:
    return "" if interval is None else f"{interval[0] * 100:.2f} - {interval[1] * 100:.2f}"
