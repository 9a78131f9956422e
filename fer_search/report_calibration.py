"""What a person reads of a calibration: how well each epoch ranks, and what to put into the space file."""

from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

from rich.markup import escape
from rich.table import Table

from fer_search.rank_agreement import Agreement, difference
from fer_search.report import new_table

if TYPE_CHECKING:
    from fer_search.calibrations import Verdict


def agreement_tables(agreements: Sequence[Agreement], *, rungs: Sequence[int], title: str, metric: str) -> list[Table]:
    """Return Kendall's tau, and the chance to keep the best, of each epoch in each way."""
    tau = (
        f"Kendall's tau of the ranking after an epoch with the one by {metric} after the last epoch of onecycle, with "
        "its 95 % interval: 1 is the same order, 0 none in common.\n* a rung; annealed begins anew after each of them."
    )
    keep = "How often the best of half of the configurations is among those that halving lets go on from there."
    return [
        _table(agreements, rungs, f"{title}: tau", tau, lambda e: f"{e.tau:.2f} ({e.low:.2f} to {e.high:.2f})"),
        _table(agreements, rungs, f"{title}: the best goes on", keep, lambda e: f"{e.keeps_best:.0%}"),
    ]


def verdict_lines(verdict: "Verdict") -> list[str]:
    """Return the verdict in words, and as the settings to put into the space file."""
    best, chosen = verdict.best, verdict.cheapest
    lines = [f"of the rungs, {_name(best)} agrees best with the end: tau {best.tau:.2f}"]
    if chosen is None or verdict.settings is None:
        return [*lines, "no rung ranks better than chance may: a later rung, or more configurations to tell"]
    if chosen != best:
        value, low, high = difference(best, chosen)
        lines.append(
            f"{_name(chosen)} is the earliest within one standard error of it: tau {chosen.tau:.2f}, "
            f"{value:.2f} less (95 % interval {low:.2f} to {high:.2f})"
        )
    settings = verdict.settings
    lines += ["", "for the space file:", "[search]", f"first_rung = {settings['first_rung']}"]
    return [*lines, f'metric = "{settings["metric"]}"', "", "[base]", f"restarts = {settings['restarts']}"]


def _table(
    agreements: Sequence[Agreement], rungs: Sequence[int], title: str, caption: str, cell: Callable[[Agreement], str]
) -> Table:
    """Return a row for each epoch and a column for each way."""
    table = new_table(title, caption=caption)
    ways = list(dict.fromkeys((each.schedule, each.metric) for each in agreements))
    for heading in ("epoch", *(f"{schedule}\n{metric}" for schedule, metric in ways)):
        table.add_column(heading, justify="right", no_wrap=True)
    found = {(each.epoch, each.schedule, each.metric): each for each in agreements}
    for epoch in sorted({each.epoch for each in agreements}):
        cells = (escape(cell(found[epoch, *way])) for way in ways)
        table.add_row(f"{epoch}{'*' if epoch in rungs else ' '}", *cells)
    return table


def _name(each: Agreement) -> str:
    return f"{each.schedule} by {each.metric} after epoch {each.epoch}"
