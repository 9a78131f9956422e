"""How a run stands, as a person reads it."""

import time
from collections.abc import Iterator
from typing import Any

from rich.markup import escape
from rich.table import Table

from fer_search.journal import TrialRecord
from fer_search.report import STATE_STYLES, new_table
from fer_search.status import RunStatus

RUN_STYLES = {"running": "cyan", "finished": "green", "stopped": "yellow", "killed": "red", "failed": "red"}
MINUTE, HOUR, DAY = 60, 3600, 86400


def status_row(status: RunStatus) -> dict[str, Any]:
    """Return how a run stands, as JSON has it."""
    return {
        "run": str(status.directory),
        "kind": status.kind,
        "state": status.state,
        "last_event": status.last_event,
        "num_trials": status.num_trials,
        "trials": status.counts,
        "epochs": status.num_epochs,
        "running": {trial.number: len(trial.epochs) for trial in status.running},
        "failures": {trial.number: list(_messages(trial)) for trial in status.troubled},
        "unsent": status.unsent,
        "tracking_error": status.tracking_error,
        "next_step": status.next_step,
    }


def runs_table(statuses: list[RunStatus]) -> Table:
    """Return a row per run: its state, its trials by theirs, its epochs, and what MLflow lacks of it."""
    table = new_table(f"{statuses[0].directory.name}: status")
    for heading in ("run", "kind", "state", "last event", "trials", "epochs", "unsent to MLflow"):
        table.add_column(heading)
    for status in statuses:
        states = sorted(status.counts.items())
        counts = ", ".join(f"[{STATE_STYLES[state]}]{count} {state}[/]" for state, count in states)
        planned = f" of {status.num_trials}" if status.num_trials and status.kind == "search" else ""
        table.add_row(
            escape(str(status.directory.relative_to(statuses[0].directory.parent))),
            status.kind,
            f"[{RUN_STYLES[status.state]}]{status.state}[/]",
            "" if status.last_event is None else f"{ago(status.last_event)} ago",
            f"{len(status.trials)}{planned}: {counts}" if status.trials else "none",
            str(status.num_epochs),
            f"[red]{status.lacking}[/]" if status.lacking else "nothing",
        )
    return table


def running_table(status: RunStatus) -> Table:
    """Return the trials that a worker has, or had when the run was interrupted, and how far they are."""
    verb = "running" if status.state == "running" else "interrupted"
    table = new_table(f"{status.directory.name}: {verb}")
    table.add_column("trial", justify="right")
    table.add_column("epochs", justify="right")
    for trial in status.running:
        table.add_row(str(trial.number), f"{len(trial.epochs)} of {trial.parameters['epochs']}")
    return table


def troubles_table(status: RunStatus) -> Table:
    """Return the trials that failed and with which error: for good, or once and were tried again."""
    table = new_table(f"{status.directory.name}: failures")
    for heading in ("trial", "state", "error"):
        table.add_column(heading, overflow="fold")
    for trial in status.troubled:
        for message in _messages(trial):
            table.add_row(str(trial.number), f"[{STATE_STYLES[trial.state]}]{trial.state}[/]", escape(message))
    return table


def ago(moment: float) -> str:
    """Return how long ago a time in seconds since the epoch was, in its largest unit."""
    return duration(max(time.time() - moment, 0.0))


def duration(seconds: float) -> str:
    """Return a number of seconds in its largest unit."""
    for unit, name in ((DAY, "d"), (HOUR, "h"), (MINUTE, "min")):
        if seconds >= 2 * unit:
            return f"{seconds / unit:.0f} {name}"
    return f"{seconds:.0f} s"


def _messages(trial: TrialRecord) -> Iterator[str]:
    yield from (f"tried again after: {message}" for message in trial.failures)
    if trial.message:
        yield trial.message
