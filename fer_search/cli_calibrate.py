"""The command that finds out which rung, judged in which way, tells early who is best at the end."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_search.cli_options import (
    AddressOption,
    ConcurrentOption,
    CpusOption,
    DataOption,
    GpusOption,
    JsonOption,
    Overrides,
    QuietOption,
    RunsOption,
    TrackingOption,
)
from fer_search.printing import print_json, print_table
from fer_search.terminal import err, going_on, out, progress

if TYPE_CHECKING:
    from fer_search.rank_agreement import Agreement


def calibrate(
    space: Annotated[Path, typer.Argument(help="A space file, such as search_spaces/calibration.toml.")],
    name: Annotated[
        str, typer.Option("--name", help="Name of the calibration; the same command goes on after a kill.")
    ],
    overrides: Overrides = None,
    data: DataOption = "synthetic",
    configurations: Annotated[int, typer.Option(help="How many to train, each in two schedules.")] = 24,
    cpus: CpusOption = 1,
    gpus: GpusOption = None,
    max_concurrent: ConcurrentOption = 0,
    address: AddressOption = None,
    tracking_uri: TrackingOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find out which rung of a space, and which way of judging there, ranks configurations as the last epoch does.

    Each configuration is trained to the last epoch twice: with one OneCycle, and with one that begins anew after
    every rung. The curves stay in `curves.parquet`.

    Example: `fer-search calibrate search_spaces/calibration.toml --name rungs --data fer2013.csv`
    """
    from fer_search.calibrations import calibrate as run
    from fer_search.recipe import parse_overrides
    from fer_search.report_calibration import agreement_tables, verdict_lines
    from fer_search.searches import chosen_resources

    with going_on("the same command"):
        found = run(
            space,
            name=name,
            num_configurations=configurations,
            data=data,
            overrides=parse_overrides(overrides or []),
            resources=chosen_resources(cpus, gpus, max_concurrent, address),
            address=address,
            tracking_uri=tracking_uri,
            runs=runs,
            follow=progress(quiet=quiet),
        )
    if found.recorded is None:
        err.print("not complete; the same command goes on where it is")
        raise typer.Exit(130)
    agreements = found.agreements()
    verdict = found.verdict(agreements)
    if as_json:
        rows = [_row(each) for each in agreements]
        chosen = None if verdict.cheapest is None else _row(verdict.cheapest)
        told = {"best": _row(verdict.best), "cheapest": chosen, "settings": verdict.settings}
        print_json({"name": name, "metric": found.space.metric, "agreements": rows, "verdict": told})
        return
    for table in agreement_tables(agreements, rungs=found.space.rungs, title=name, metric=found.space.metric):
        print_table(table)
    for line in verdict_lines(verdict):
        out.print(line, markup=False, soft_wrap=True)


def _row(agreement: "Agreement") -> dict[str, Any]:
    names = ("schedule", "metric", "epoch", "tau", "low", "high", "keeps_best")
    return {name: getattr(agreement, name) for name in names}
