"""The trials of a search by what they reached, as rows, as a line and as terminal tables."""

from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from fer_search.journal import TrialRecord
from fer_search.report import STATE_STYLES, new_table, percent, short_value

if TYPE_CHECKING:
    from fer_search.tuning.space import Space

NUM_SHOWN_SIDE_BY_SIDE = 5


def leaderboard_rows(trials: list[TrialRecord], space: "Space", *, num_validation: int | None) -> list[dict[str, Any]]:
    """Return one row per trial, in the given order: rank, state, epochs, value with its 95 % interval, parameters.

    The difference to trial 0, the space's own settings, is given for trials that reached the horizon, as it did. There
    is no interval where nobody knows how many images an accuracy is of.
    """
    from fer_search.training.metrics import accuracy_interval  # numpy, which the command line alone does without

    first = next((t.last(space.metric) for t in trials if t.number == 0 and t.state == "COMPLETE"), None)
    rows = []
    for rank, trial in enumerate(trials, start=1):
        value = trial.last(space.metric)
        low = high = None
        if num_validation is not None and value is not None and space.metric.startswith("val_accuracy"):
            low, high = accuracy_interval(round(value * num_validation), num_validation)
        difference = None
        if first is not None and value is not None and trial.state == "COMPLETE":
            difference = value - first
        rows.append(
            {
                "rank": rank,
                "trial": trial.number,
                "state": trial.state,
                "epochs": len(trial.epochs),
                space.metric: value,
                "low": low,
                "high": high,
                "difference_to_first": difference,
                "message": trial.message,
                "parameters": {key: trial.parameters[key] for key in space.searched},
            }
        )
    return rows


def leader_line(rows: list[dict[str, Any]], space: "Space") -> str:
    """Return who leads a leaderboard, by how much, and what that does not say."""
    if not rows or rows[0][space.metric] is None:
        return "no trial has anything to compare yet"
    best, difference = rows[0], rows[0]["difference_to_first"]
    value = f"{best[space.metric]:.4f}"
    if best["low"] is not None:
        value += f" (95 % interval {best['low']:.4f} to {best['high']:.4f})"
    after = f"after {best['epochs']} of {space.horizon} {space.resource}"
    if best["trial"] == 0:
        return f"trial 0, the space's own settings, leads with {space.metric} {value} {after}"
    versus = "" if difference is None else f", {difference:+.4f} against the space's own settings"
    return f"trial {best['trial']} leads with {space.metric} {value} {after}{versus}"


def leaderboard_table(rows: list[dict[str, Any]], space: "Space", *, title: str) -> Table:
    """Return the leaderboard for a terminal."""
    caption = (
        f"* the space's own settings. {space.metric} after {space.horizon} epochs on search-validation; stopped trials "
        "show their last value. The best of many trials looks better than it is: what counts are the figures of "
        "retrain."
    )
    table = new_table(title, caption=caption)
    for heading in ("#", "trial", "state", "epochs", space.metric, "95 % interval", "vs 0*"):
        table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for row in rows:
        difference = row["difference_to_first"]
        table.add_row(
            str(row["rank"]),
            f"{row['trial']}{'*' if row['trial'] == 0 else ''}",
            f"[{STATE_STYLES[row['state']]}]{row['state']}[/]",
            f"{row['epochs']}/{space.horizon}",
            percent(row[space.metric]),
            "" if row["low"] is None else f"{row['low'] * 100:.1f} - {row['high'] * 100:.1f}",
            "" if difference is None else f"{difference * 100:+.1f}",
        )
    return table


def parameters_table(rows: list[dict[str, Any]], first: dict[str, Any] | None) -> Table:
    """Return the searched parameters of the first rows and of the `first` trial side by side, bold where they differ
    from its.
    """
    shown = rows[:NUM_SHOWN_SIDE_BY_SIDE]
    if first is not None and first not in shown:
        shown = [*shown, first]
    caption = None if first is None else "bold: other than the space's own settings"
    table = new_table("parameters", caption=caption)
    for heading in ("parameter", *(f"trial {row['trial']}{'*' if row['trial'] == 0 else ''}" for row in shown)):
        table.add_column(heading, justify="left" if heading == "parameter" else "right")
    for key in shown[0]["parameters"]:
        own = [row["parameters"][key] for row in shown]
        differs = [first is not None and value != first["parameters"][key] for value in own]
        texts = [escape(short_value(value)) for value in own]
        table.add_row(key, *(f"[bold]{text}[/]" if new else text for text, new in zip(texts, differs, strict=True)))
    return table
