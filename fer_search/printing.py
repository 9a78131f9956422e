"""What a command prints when it is done: tables on stdout, or JSON, and on stderr what may come next."""

import json
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import typer
from rich.table import Table

from fer_search.report import figures_table, leak_line, paired_lines, summary_table, target_line, training_table
from fer_search.report_choice import (
    adjustment_line,
    agreement_line,
    combination_tables,
    seeds_table,
    tradeoffs_note,
    tradeoffs_table,
)
from fer_search.report_leaderboard import leaderboard_table, parameters_table
from fer_search.report_stages import packing_table, preview_table, race_table, standing_rows
from fer_search.report_status import running_table, runs_table, status_row, troubles_table
from fer_search.terminal import err, out
from fer_search.tracking_links import link_lines

if TYPE_CHECKING:
    from fer_search.packings import PackingPlan
    from fer_search.races import RaceResult
    from fer_search.search_result import SearchResult
    from fer_search.searches import Preview
    from fer_search.status import RunStatus
    from fer_search.tradeoffs import Tradeoff


def print_table(table: Table) -> None:
    """Print a table on stdout, and an empty line below it, which rich leaves out where there is a caption."""
    out.print(table)
    if table.caption:
        out.print()


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True))


def print_search(
    result: "SearchResult",
    rows: list[dict[str, Any]],
    *,
    as_json: bool,
    cost: str | None = None,
    tradeoffs: list["Tradeoff"] | None = None,
) -> None:
    """Print these rows of a search's leaderboard, the race of its best if there was one, and its trials against a cost
    of theirs where it was asked for.
    """
    metric, agreement, standings = result.space.metric, result.rank_agreement(), result.standings()
    if as_json:
        found = {"name": result.name, "complete": result.complete, "metric": metric, "trials": rows}
        found["rank_agreement"] = None if agreement is None else asdict(agreement)
        found["race"] = standing_rows(standings)
        print_json(found if tradeoffs is None else {**found, "cost": cost, "tradeoffs": [*map(asdict, tradeoffs)]})
        return
    title = f"{result.name}: {len(rows)} of {result.space.num_trials} trials"
    print_table(leaderboard_table(rows, result.space, title=title))
    if rows:
        first = next((row for row in result.rows() if row["trial"] == 0), None)
        print_table(parameters_table(rows, first))
    if standings:
        print_table(race_table(standings, title=f"{result.name}: race"))
    if tradeoffs and cost is not None:
        print_table(tradeoffs_table(tradeoffs, metric=metric, cost=cost))
        out.print(tradeoffs_note(cost, name=result.name), soft_wrap=True)
    if agreement is not None:
        out.print(agreement_line(asdict(agreement), name=result.name), soft_wrap=True)


def finish_search(result: "SearchResult", *, as_json: bool, quiet: bool) -> None:
    """Print the leaderboard and what to do next; a search that is not complete ends the program with code 130, one of
    which no trial came to the end with code 1.
    """
    cost = result.space.cost
    tradeoffs = None if cost is None else result.tradeoffs(cost)
    print_search(result, result.rows(), as_json=as_json, cost=cost, tradeoffs=tradeoffs)
    if not quiet:
        print_links(result.directory)
    if not result.complete:
        err.print(f"not complete; to go on where it is: fer-search resume {result.name}")
        raise typer.Exit(130)
    if not any(trial.state == "COMPLETE" for trial in result.trials):
        err.print("no trial reached the last epoch; their messages are in compare --json")
        raise typer.Exit(1)
    if quiet:
        return
    print_next(
        f"fer-search race {result.name}, or fer-search retrain {result.name}, or look around with fer-search report "
        f"{result.name}"
    )


def print_links(search: Path) -> None:
    """Print where MLflow's UI shows a search, beside what the command is for."""
    for line in link_lines(search.resolve()):
        err.print(line, markup=False, soft_wrap=True)


def print_next(what: str) -> None:
    """Print what one would do next, beside what the command is for."""
    err.print(f"next: {what}", markup=False, soft_wrap=True)


def print_status(statuses: "list[RunStatus]", *, as_json: bool) -> None:
    """Print how a run and those below it stand, and what to do next."""
    if as_json:
        print_json([status_row(status) for status in statuses])
        return
    print_table(runs_table(statuses))
    for status in statuses:
        if status.running:
            print_table(running_table(status))
        if status.troubled:
            print_table(troubles_table(status))
        if status.lacking and status.tracking_error:
            out.print(f"MLflow: {status.tracking_error}", markup=False, soft_wrap=True)
    out.print(statuses[0].next_step, markup=False, soft_wrap=True)
    if statuses[0].state != "running" and any(status.lacking for status in statuses):
        out.print(f"to send to MLflow what it lacks: fer-search sync {statuses[0].directory.name}", soft_wrap=True)


def print_preview(expected: "Preview", *, as_json: bool) -> None:
    """Print what a search would take."""
    if as_json:
        print_json({**asdict(expected), "worker_hours": expected.hours, "disk_bytes": expected.disk.most(1)})
    else:
        print_table(preview_table(expected))


def print_packing(measured: "PackingPlan") -> None:
    """Print how many trials are best run at once, beside what the command is for."""
    err.print(packing_table(measured))


def finish_race(result: "RaceResult", *, name: str, as_json: bool) -> None:
    """Print the standings of a race; one that was interrupted ends the program with code 130, one that nobody
    finished with code 1.
    """
    title = f"{name}: race"
    if as_json:
        print_json({"name": title, "finished": result.finished, "standings": standing_rows(result.standings)})
    elif result.standings:
        print_table(race_table(result.standings, title=title))
    if not result.finished:
        err.print(f"not complete; to go on where it is: fer-search race {name}, with the same options")
        raise typer.Exit(130)
    if all(standing.failed for standing in result.standings):
        raise typer.Exit(1)


def print_training(result: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures of a training: search-validation for choosing, PublicTest as the result."""
    if as_json:
        print_json(result)
        return
    chosen, views = result["chosen"], result["prediction"]["views"]
    out.print(f"weights: {chosen['kind']} of epoch {chosen['epoch']}, chosen on search-validation")
    if line := adjustment_line(result["prediction"]):
        out.print(line, soft_wrap=True)
    label, metrics = result["data"]["public_label"], result["metrics"]
    print_table(training_table(result, title="figures"))
    public = metrics["public"][views]
    print_table(figures_table(public, title=f"{label}, {views} views"))
    if line := target_line(public, label=label):
        out.print(line)
    if probe := result["leak_probe"]:
        out.print(leak_line(probe))


def print_retraining(result: dict[str, Any], *, name: str, as_json: bool) -> None:
    """Print the figures of the training that export takes, of all seeds, and whether the search ranked as they do."""
    print_training(result, as_json=as_json)
    if as_json:
        return
    if len(result["seeds"]["trainings"]) > 1:
        print_table(seeds_table(result["seeds"]))
    if result["rank_agreement"]:
        out.print(agreement_line(result["rank_agreement"], name=name), soft_wrap=True)


def print_selection(manifest: dict[str, Any], bundle: Path) -> None:
    """Print how what is in a bundle was chosen among several trainings, if it was."""
    selection = manifest["selection"]
    if selection is None:
        return
    if manifest["kind"] == "training":
        count = len(selection["val_accuracy_of_seeds"])
        out.print(f"of {count} seeds it is {selection['seed']}, the best on search-validation", soft_wrap=True)
        return
    views, best = manifest["prediction"]["views"], selection["best_alone"]
    accuracy = manifest["prediction"]["val_accuracy"][views]
    for table in combination_tables(selection, kind=manifest["kind"]):
        out.print(table)
    out.print(
        f"search-validation: first, the {manifest['kind']}, {accuracy:.2%} in {views} views; second, the best alone "
        f"({best['name']}), {best['val_accuracy']:.2%} in {best['views']} views; first minus second:",
        markup=False, soft_wrap=True,
    )  # fmt: skip
    for line in paired_lines(selection["paired"]):
        out.print(line)
    label = manifest["data"]["public_label"]
    out.print(
        f"search-validation chose it and so flatters it; the figure to believe is that on {label}: "
        f"fer-search evaluate {bundle} --against BUNDLE", markup=False, soft_wrap=True,
    )  # fmt: skip


def print_evaluation(result: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures of a bundle, and how it compares where it was measured against another one."""
    if as_json:
        print_json(result)
        return
    measured = {"first": result, "second": result["against"]} if "against" in result else {result["split"]: result}
    for each in measured.values():
        if not each["same_data_as_training"]:
            err.print(f"note: this is not the data set that {each['bundle']} was trained on", soft_wrap=True)
    rows = [
        (name, views, views == each["views"], each[views])
        for name, each in measured.items()
        for views in ("plain", "tta")
    ]
    caption = "\n".join(f"{name}: {each['bundle']}" for name, each in measured.items())
    print_table(summary_table(rows, title=str(result["label"]), caption=caption))
    chosen = result[result["views"]]
    print_table(figures_table(chosen, title=f"{result['bundle']} on {result['label']}, {result['views']} views"))
    if line := target_line(chosen, label=result["label"]):
        out.print(line)
    if "paired" in result:
        out.print("first minus second, each with its chosen views:")
        for line in paired_lines(result["paired"]):
            out.print(line)
