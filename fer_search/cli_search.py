"""The commands of a search: start it, go on, look at it, race its best and retrain the winner."""

from contextlib import nullcontext
from pathlib import Path
from typing import Annotated

import typer

from fer_search.cli_options import (
    AddressOption,
    ConcurrentOption,
    CpusOption,
    DataOption,
    EpochBudgetOption,
    GpuHoursOption,
    GpusOption,
    HoursOption,
    JsonOption,
    Overrides,
    QuietOption,
    RunsOption,
    SearchArgument,
    SoftLabelsOption,
    TrackingOption,
    TrialOption,
)
from fer_search.completion import offered_runs
from fer_search.errors import InvalidInput, problem
from fer_search.printing import (
    finish_race,
    finish_search,
    print_links,
    print_next,
    print_packing,
    print_preview,
    print_retraining,
    print_search,
)
from fer_search.terminal import err, going_on, progress, shown


def search(
    space: Annotated[Path, typer.Argument(help="A space file, such as search_spaces/full.toml.")],
    name: Annotated[str, typer.Option("--name", help="Name of the search.")],
    overrides: Overrides = None,
    data: DataOption = "synthetic",
    soft_labels: SoftLabelsOption = None,
    trials: Annotated[int | None, typer.Option(min=1, help="Number of trials; default: the space file's.")] = None,
    cpus: CpusOption = 1,
    gpus: GpusOption = None,
    max_concurrent: ConcurrentOption = 0,
    pack: Annotated[
        bool,
        typer.Option("--pack", help="Measure how many trials are best run at once on a GPU, or on the cores; do that."),
    ] = False,
    address: AddressOption = None,
    tracking_uri: TrackingOption = None,
    hours: HoursOption = None,
    epoch_budget: EpochBudgetOption = None,
    gpu_hours: GpuHoursOption = None,
    warm_start: Annotated[
        str | None,
        typer.Option(
            metavar="NAME",
            help="An earlier search; its trials in this space are learned from.",
            autocompletion=offered_runs,
        ),
    ] = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Check everything, time a few steps, say what it would take, and stop.")
    ] = False,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Search a space for the best recipe.

    Examples:

    - `fer-search search search_spaces/smoke.toml --name first`
    - `fer-search search search_spaces/full.toml --name full --data fer2013.csv --gpus-per-trial 0.5 epochs=30`
    """
    from fer_search import workflow
    from fer_search.packings import check_packable
    from fer_search.recipe import parse_overrides
    from fer_search.searches import chosen_resources
    from fer_search.tuning.limit import Budget

    resources = chosen_resources(cpus, gpus, max_concurrent, address)
    if pack:
        check_packable(resources, gpus=gpus)
        if not dry_run:
            workflow.new_search(name, runs=runs)  # before minutes go into measuring
        with nullcontext() if quiet else err.status("measuring how many trials are best run at once"):
            measured = workflow.plan_packing(
                space, data=data, soft_labels=soft_labels, overrides=parse_overrides(overrides or []),
                resources=resources, address=address,
            )  # fmt: skip
        if not quiet:
            print_packing(measured)
        resources = measured.chosen.resources
    if dry_run:
        with nullcontext() if quiet else err.status("checking, and timing a few steps"):
            expected = workflow.preview_search(
                space,
                data=data,
                soft_labels=soft_labels,
                overrides=parse_overrides(overrides or []),
                num_trials=trials,
                resources=resources,
                warm_start=warm_start,
                runs=runs,
            )
        print_preview(expected, as_json=as_json)
        return
    budget = Budget(hours, epoch_budget, gpu_hours)
    with going_on(f"fer-search resume {name}", run=runs / name), shown(runs / name, budget, quiet=quiet) as follow:
        result = workflow.search(
            space,
            name=name,
            data=data,
            soft_labels=soft_labels,
            overrides=parse_overrides(overrides or []),
            num_trials=trials,
            resources=resources,
            address=address,
            tracking_uri=tracking_uri,
            budget=budget,
            warm_start=warm_start,
            runs=runs,
            follow=follow,
        )
    finish_search(result, as_json=as_json, quiet=quiet)


def resume(
    name: SearchArgument,
    trials: Annotated[
        int | None, typer.Option(min=1, help="Go on to this number of trials, also with a finished search.")
    ] = None,
    hours: HoursOption = None,
    epoch_budget: EpochBudgetOption = None,
    gpu_hours: GpuHoursOption = None,
    address: AddressOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Go on with a search that was interrupted or has spent its budget, trial by trial, or with more trials.

    Examples:

    - `fer-search resume first`
    - `fer-search resume first --trials 300`
    """
    from fer_search import workflow
    from fer_search.tuning.limit import Budget

    budget = Budget(hours, epoch_budget, gpu_hours)
    with going_on(f"fer-search resume {name}", run=runs / name), shown(runs / name, budget, quiet=quiet) as follow:
        result = workflow.resume(name, num_trials=trials, budget=budget, address=address, runs=runs, follow=follow)
    finish_search(result, as_json=as_json, quiet=quiet)


def compare(
    name: SearchArgument,
    cost: Annotated[
        str | None,
        typer.Option(
            help="Show accuracy against parameters, flops or latency too, with the Pareto front; default: the cost "
            "that the search looked at, if any."
        ),
    ] = None,
    where: Annotated[
        list[str] | None,
        typer.Option(metavar="CONDITION", help="Only trials for which it holds: 'sam_rho >= 0.05', 'state = PRUNED'."),
    ] = None,
    sort: Annotated[
        str | None, typer.Option(metavar="COLUMN", help="Order by a column or parameter; -COLUMN: the highest first.")
    ] = None,
    limit: Annotated[int | None, typer.Option(min=1, help="Show at most this number of trials.")] = None,
    as_csv: Annotated[bool, typer.Option("--csv", help="Print the leaderboard as csv.")] = False,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Print the leaderboard of a search, also while it runs, the race of its best, and what its networks cost.

    Examples:

    - `fer-search compare first --where 'sam_rho >= 0.05' --sort=-max_lr`
    - `fer-search compare first --csv`
    - `fer-search compare first --cost latency`
    """
    from fer_search.costs import COST_FIELDS
    from fer_search.row_selection import rows_csv, select_rows
    from fer_search.search_result import read_search

    if as_csv and (as_json or cost):
        other = "json" if as_json else "cost"
        raise InvalidInput(problem("command line", "csv", f"must not be given with --{other}", True))
    result = read_search(name, runs=runs)
    rows = select_rows(result.rows(), where=where or [], sort=sort, limit=limit)
    if as_csv:
        typer.echo(rows_csv(rows), nl=False)
        return
    cost = cost or result.space.cost
    tradeoffs = None
    if cost is not None:
        with err.status("measuring networks"):
            tradeoffs = result.tradeoffs(cost)
    print_search(result, rows, as_json=as_json, cost=cost, tradeoffs=tradeoffs)
    if cost is None and not as_json and set(COST_FIELDS) & set(result.space.searched):
        err.print(f"its networks differ in cost: fer-search compare {name} --cost latency")


def race(
    name: SearchArgument,
    top: Annotated[
        int, typer.Option(min=1, help="How many of the best trials, or of the front, race beside the first.")
    ] = 5,
    seeds: Annotated[int, typer.Option(min=3, help="Most seeds that an entrant is trained with.")] = 6,
    address: AddressOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the best of a search with fresh seeds until one is the winner, or a tie; goes on after a kill.

    Each is trained as long as in the search; who is worse than the leader (p < 0.05) after three seeds gets no more.

    Example: `fer-search race first --top 3`
    """
    from fer_search import workflow

    with going_on("the same command"):
        result = workflow.race(name, top=top, max_seeds=seeds, address=address, runs=runs, follow=progress(quiet=quiet))
    finish_race(result, name=name, as_json=as_json)
    if not quiet:
        print_links(runs / name)
        print_next(f"fer-search retrain {name}")


def retrain(
    name: SearchArgument,
    overrides: Overrides = None,
    epochs: Annotated[int, typer.Option(min=1, help="Length of the training.")] = 300,
    seeds: Annotated[int, typer.Option(min=1, help="Trainings, each with a fresh seed; several run at once.")] = 1,
    trial: TrialOption = None,
    address: AddressOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train the winner of a search afresh and for longer; the same command goes on after a kill.

    Of several seeds, export takes the one that did best on search-validation.

    Example: `fer-search retrain first --epochs 300 --seeds 3`
    """
    from fer_search import workflow
    from fer_search.recipe import parse_overrides

    with going_on("the same command"):
        result = workflow.retrain(
            name,
            epochs=epochs,
            overrides=parse_overrides(overrides or []),
            trial=trial,
            seeds=seeds,
            address=address,
            runs=runs,
            follow=progress(quiet=quiet),
        )
    print_retraining(result, name=name, as_json=as_json)
    if not quiet:
        print_links(runs / name)
        print_next(f"fer-search export {name}{'' if trial is None else f' --trial {trial}'}")
