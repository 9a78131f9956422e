"""What the command line prints, and where: results to stdout, progress to stderr."""

import json
import logging
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import typer
from rich.console import Console

from fer_search.journal import Event
from fer_search.report import event_line, figures_table, leaderboard_rows, leaderboard_table, parameters_table

if TYPE_CHECKING:
    from fer_search.workflow import SearchResult

WIDTH_OF_A_FILE = 160
out = Console(highlight=False, width=None if sys.stdout.isatty() else WIDTH_OF_A_FILE)
err = Console(stderr=True, highlight=False)


def progress() -> Callable[[Event], None]:
    """Return a receiver of journal events that prints a line each; it takes over from the libraries' own chatter."""
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)
    num_epochs: dict[int, int] = {}

    def receive(event: Event) -> None:
        if event["event"] == "trial_started":
            num_epochs[event["trial"]] = event["parameters"]["epochs"]
        err.print(event_line(event, num_epochs=num_epochs.get(event["trial"])), markup=False, soft_wrap=True)

    return receive


def print_json(value: Any) -> None:
    """Print a value as JSON on stdout."""
    typer.echo(json.dumps(value, indent=2, sort_keys=True))


def print_search(result: "SearchResult", *, as_json: bool) -> None:
    """Print a search's leaderboard as it stands."""
    rows = leaderboard_rows(
        result.leaderboard(), result.space, num_validation=result.settings["data"]["num_validation"]
    )
    if as_json:
        print_json({"name": result.name, "complete": result.complete, "metric": result.space.metric, "trials": rows})
    else:
        title = f"{result.name}: {len(rows)} of {result.space.num_trials} trials"
        out.print(leaderboard_table(rows, result.space, title=title))
        if rows:
            out.print(parameters_table(rows))


def finish_search(result: "SearchResult", *, as_json: bool) -> None:
    """Print the leaderboard and what to do next; an interrupted search ends the program with code 130."""
    print_search(result, as_json=as_json)
    if not result.complete:
        err.print(f"interrupted; to go on where it is: fer-search resume {result.name}")
        raise typer.Exit(130)
    if not any(trial.state == "COMPLETE" for trial in result.trials):
        err.print("no trial reached the last epoch; their messages are in compare --json")
        raise typer.Exit(1)
    err.print(f"next: fer-search retrain {result.name}, or look around with fer-search ui")


def print_training(result: dict[str, Any], *, as_json: bool) -> None:
    """Print the figures of a training: search-validation for choosing, PublicTest as the result."""
    if as_json:
        print_json(result)
        return
    chosen = result["chosen"]
    out.print(f"weights: {chosen['kind']} of epoch {chosen['epoch']}, chosen on search-validation")
    out.print(figures_table(result["metrics"]["validation"], title="search-validation (chosen on, so optimistic)"))
    out.print(figures_table(result["metrics"]["public"], title=result["data"]["public_label"]))
