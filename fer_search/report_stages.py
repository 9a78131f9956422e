"""What a person reads of the stages around a search: what it would take, and how its best did on fresh seeds."""

from collections.abc import Sequence
from dataclasses import asdict
from typing import TYPE_CHECKING, Any

from rich.table import Table

from fer_search.report import new_table, percent

if TYPE_CHECKING:
    from fer_search.packings import PackingPlan
    from fer_search.searches import Preview
    from fer_search.tuning.race import Standing


def preview_table(expected: "Preview") -> Table:
    """Return what a search would take, for a terminal."""
    caption = (
        "Timed over a few steps of the first trial: other values may be slower or faster, and halving as it "
        "happens lets some more through. Checkpoints: those of the largest network."
    )
    table = new_table("what the search would take", caption=caption)
    table.add_column("")
    table.add_column("expected", justify="right")
    for level, count in expected.reached.items():
        table.add_row(f"trials that reach epoch {level}", f"{count:,}")
    table.add_row("epochs of all trials", f"{expected.epochs:,}")
    table.add_row("seconds per epoch", f"{expected.seconds_per_epoch:.1f}")
    table.add_row("hours of one worker", f"{expected.hours:.2f}")
    table.add_row("a checkpoint", f"{expected.disk.checkpoint_bytes / 1e6:.1f} MB")
    table.add_row("all checkpoints at most, with one worker", f"{expected.disk.most(1) / 1e6:,.0f} MB")
    table.add_row("checkpoints that are kept, of the best trials", f"{expected.disk.kept / 1e6:,.0f} MB")
    return table


def packing_table(measured: "PackingPlan") -> Table:
    """Return how fast trials are beside each other, for a terminal."""
    on_gpu = measured.chosen.resources.gpus > 0
    caption = "Trains the first trial's recipe on a few images."
    if on_gpu:
        caption += " A trial that runs out of memory in the search gets twice the room."
    if on_gpu and not all(packing.mps for packing in measured.packings if packing.rate is not None):
        caption += " Without MPS (nvidia-cuda-mps-control -d, before Ray starts) trials take turns on a GPU."
    table = new_table(f"trials at once on a {'GPU' if on_gpu else 'machine'}", caption=caption)
    for heading in ("trials", "GPUs each" if on_gpu else "CPUs each", "images/s together", "against one", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    alone = measured.images_per_second(measured.packings[0])
    for packing in measured.packings:
        share = f"{packing.resources.gpus:g}" if on_gpu else str(packing.resources.cpus)
        rate = measured.images_per_second(packing)
        figures = [f"{rate:,.0f}", f"{rate / alone:.2f}"] if rate and alone else ["out of memory", ""]
        table.add_row(str(packing.count), share, *figures, "chosen" if packing is measured.chosen else "")
    return table


def race_table(standings: list["Standing"], *, title: str) -> Table:
    """Return how the best trials did with fresh seeds, and the verdict."""
    caption = (
        f"{race_verdict(standings)}.\n* the space's own settings. Means of seeds that had no part in the choice, with "
        "the interval of the mean; p: the chance to be as far behind if it were no worse than the first."
    )
    table = new_table(title, caption=caption)
    for heading in ("trial", "seeds", "mean", "95 % interval", "behind", "p", ""):
        table.add_column(heading, justify="right", no_wrap=True)
    for standing in standings:
        table.add_row(
            f"{standing.trial}{'*' if standing.trial == 0 else ''}",
            str(len(standing.scores)),
            percent(standing.mean) if standing.scores else "",
            "" if (interval := standing.interval) is None else f"{interval[0] * 100:.2f} - {interval[1] * 100:.2f}",
            "" if standing.failed else f"{standing.behind * 100:.2f}",
            "" if standing.failed else f"{standing.p_value:.3f}",
            "[red]failed[/]" if standing.failed else "[green]in[/]" if standing.in_race else "out",
        )
    return table


def standing_rows(standings: list["Standing"]) -> list[dict[str, Any]]:
    """Return the standings of a race as JSON has them, with mean and 95 % interval."""
    return [
        {
            **asdict(standing),
            "mean": standing.mean if standing.scores else None,
            "low": low,
            "high": high,
            "in_race": standing.in_race,
        }
        for standing in standings
        for low, high in [standing.interval or (None, None)]
    ]


def race_verdict(standings: Sequence["Standing"]) -> str:
    """Return who has won a race, or that nobody has."""
    best = [standing for standing in standings if standing.in_race]
    if not best:
        return "no entrant trained to the end with every seed"
    if len(best) == 1:
        return f"the winner is trial {best[0].trial}"
    return f"a tie between the trials {', '.join(str(standing.trial) for standing in best)}"
