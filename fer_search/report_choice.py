"""What a person reads when choosing among what was trained: accuracy against cost, seeds, and whether ranks hold."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
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


def combination_tables(selection: Mapping[str, Any], *, kind: str) -> list[Table]:
    """Return how a soup or an ensemble was chosen step by step, and what an ensemble consists of."""
    captions = {
        "soup": "Best first; kept where the mean of weights with it is no worse by accuracy, then NLL, in one view.",
        "ensemble": "Each is the one that lowers the whole's NLL the most, in one view; accuracy decides nothing.",
    }
    trail = new_table(f"{kind}, chosen on search-validation", caption=captions[kind])
    trail.add_column("with", overflow="fold")
    for heading in ("accuracy", "NLL", *(["kept"] if kind == "soup" else [])):
        trail.add_column(heading, justify="right", no_wrap=True)
    for step in selection["trail"]:
        kept = ["yes" if step["kept"] else "no"] if kind == "soup" else []
        trail.add_row(escape(step["added"]), f"{step['val_accuracy']:.2%}", f"{step['val_nll']:.4f}", *kept)
    if kind == "soup":
        return [trail]
    caption = "Accuracy: alone, in its own views. Disagreement: the mean share of images that another calls otherwise."
    members = new_table("members", caption=caption)
    members.add_column("training", overflow="fold")
    for heading in ("weight", "accuracy", "disagreement"):
        members.add_column(heading, justify="right", no_wrap=True)
    total = sum(part["count"] for part in selection["parts"])
    for part in selection["parts"]:
        share = f"{part['count']}/{total}"
        members.add_row(escape(part["name"]), share, f"{part['val_accuracy']:.2%}", percent(part["disagreement"]))
    return [trail, members]


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
        there = "there is one" if count == 1 else f"there are {count}"
        return (
            f"whether the search ranks as long trainings do can be told from three of them on; {there}, of {epochs} "
            f"epochs (fer-search retrain {name} --trial N --epochs {epochs})"
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
