"""What a person reads of a search's importances."""

from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from fer_search.report import new_table

if TYPE_CHECKING:
    from fer_search.tuning.importance import Importance, Importances


def importances_table(found: "Importances", *, title: str) -> Table:
    """Return the parameters, the most important first; those without a proven effect are dim."""
    caption = (
        f"From the ranks of {found.num_trials} trials, stopped ones ranked among those that came as far. Together the "
        f"parameters explain {found.explained:.0%} of the ranks' variance; an importance is a parameter's own share of "
        "that variance, with its 95 % interval. One that holds 0 proves no effect. Best quarter of the trials: the "
        "middle 80 % of its values, or how often it has each choice. All of it is about what was tried, no more."
    )
    table = new_table(title, caption=caption)
    for heading in ("parameter", "importance (95 %)", "trials"):
        table.add_column(heading, justify="left" if heading == "parameter" else "right", no_wrap=True)
    table.add_column("best quarter")
    for each in found.parameters:
        table.add_row(
            each.parameter,
            f"{each.importance:.1%} ({each.low * 100:.1f} to {each.high * 100:.1f})",
            str(each.num_trials),
            escape(_best(each)),
            style="dim" if each.low <= 0 else None,
        )
    return table


def _best(each: "Importance") -> str:
    if each.best_range is not None:
        low, high = (f"{end:.3g}" if isinstance(end, float) else str(end) for end in each.best_range)
        return f"{low} to {high}" if low != high else low
    return ", ".join(f"{choice} ({count})" for choice, count in each.best_choices.items()) or "not searched"
