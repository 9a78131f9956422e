"""What a person reads: leaderboard, figures and audit as terminal tables, and one line per event of a journal."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rich import box
from rich.markup import escape
from rich.table import Table

from fer_search.data.audit import Audit
from fer_search.data.faces import EMOTIONS
from fer_search.journal import Event, TrialRecord
from fer_search.training.metrics import accuracy_interval, summary

if TYPE_CHECKING:
    from fer_search.tuning.space import Space

NUM_SHOWN_SIDE_BY_SIDE = 5
STATE_STYLES = {"COMPLETE": "green", "PRUNED": "yellow", "FAIL": "red", "RUNNING": "cyan"}


def leaderboard_rows(trials: list[TrialRecord], space: "Space", *, num_validation: int) -> list[dict[str, Any]]:
    """Return one row per trial, in the given order: rank, state, epochs, value with its 95 % interval, parameters.

    The difference to the default recipe (trial 0) is given for trials that reached the horizon, as it did.
    """
    default = next((t.last(space.metric) for t in trials if t.number == 0 and t.state == "COMPLETE"), None)
    rows = []
    for rank, trial in enumerate(trials, start=1):
        value = trial.last(space.metric)
        is_accuracy = space.metric.startswith("val_accuracy")
        low, high = (
            accuracy_interval(round(value * num_validation), num_validation)
            if is_accuracy and value is not None
            else (None, None)
        )
        difference = None
        if default is not None and value is not None and trial.state == "COMPLETE":
            difference = value - default
        rows.append(
            {
                "rank": rank,
                "trial": trial.number,
                "state": trial.state,
                "epochs": len(trial.epochs),
                space.metric: value,
                "low": low,
                "high": high,
                "difference_to_default": difference,
                "message": trial.message,
                "parameters": {key: trial.parameters[key] for key in space.domains},
            }
        )
    return rows


def leaderboard_table(rows: list[dict[str, Any]], space: "Space", *, title: str) -> Table:
    """Return the leaderboard for a terminal."""
    caption = (
        f"* the default recipe. {space.metric} after {space.horizon} epochs on search-validation; stopped trials show "
        "their last value.\nThe best of many trials looks better than it is: what counts are the figures of retrain."
    )
    table = _table(title, caption=caption)
    for heading in ("#", "trial", "state", "epochs", space.metric, "95 % interval", "vs default"):
        table.add_column(heading, justify="left" if heading == "state" else "right", no_wrap=True)
    for row in rows:
        difference = row["difference_to_default"]
        table.add_row(
            str(row["rank"]),
            f"{row['trial']}{'*' if row['trial'] == 0 else ''}",
            f"[{STATE_STYLES[row['state']]}]{row['state']}[/]",
            f"{row['epochs']}/{space.horizon}",
            _percent(row[space.metric]),
            "" if row["low"] is None else f"{row['low'] * 100:.1f} - {row['high'] * 100:.1f}",
            "" if difference is None else f"{difference * 100:+.1f}",
        )
    return table


def parameters_table(rows: list[dict[str, Any]]) -> Table:
    """Return the searched parameters of the best trials and of the default recipe, side by side."""
    shown = [row for row in rows if row["rank"] <= NUM_SHOWN_SIDE_BY_SIDE or row["trial"] == 0]
    table = _table("parameters of the best")
    for heading in ("parameter", *(f"trial {row['trial']}{'*' if row['trial'] == 0 else ''}" for row in shown)):
        table.add_column(heading, justify="left" if heading == "parameter" else "right")
    for key in rows[0]["parameters"]:
        table.add_row(key, *(_short(row["parameters"][key]) for row in shown))
    return table


def figures_table(figures: Mapping[str, Any], *, title: str) -> Table:
    """Return recall and confusion per emotion for a terminal; rows are the true emotion, columns the predicted one."""
    table = _table(title, caption=f"{summary(figures)}\nrows: true emotion, columns: predicted")
    for heading in ("emotion", "recall", *EMOTIONS):
        table.add_column(heading, justify="left" if heading == "emotion" else "right")
    for name, counts in zip(EMOTIONS, figures["confusion"], strict=True):
        table.add_row(name, _percent(figures["recall"][name]), *map(str, counts))
    return table


def audit_tables(found: Audit, *, title: str) -> list[Table]:
    """Return class counts and what the audit found for a terminal."""
    counts = _table(title, caption=f"fingerprint {found.fingerprint}")
    for heading in ("split", *EMOTIONS, "total"):
        counts.add_column(heading, justify="left" if heading == "split" else "right")
    for usage, by_emotion in found.counts.items():
        counts.add_row(usage, *(f"{by_emotion[name]:,}" for name in EMOTIONS), f"{sum(by_emotion.values()):,}")
    findings = _table("what to know about it")
    findings.show_header = False
    findings.add_column(justify="right")
    findings.add_column()
    for number, text in (
        (found.duplicate_groups, "groups of byte-identical images"),
        (found.extra_copies, "extra copies in them"),
        (found.groups_across_splits, "of these groups cross a split"),
        (found.groups_with_conflicting_labels, "carry conflicting labels"),
        *((count, f"{usage} images stand in Training too") for usage, count in found.test_images_in_training.items()),
        (found.training_images_in_tests, "Training images stand in a test split too, and are left out of fitting"),
        (found.constant_images, "constant (blank) images"),
    ):
        findings.add_row(f"{number:,}", text)
    if near := found.near_duplicates:
        findings.add_row(
            f"{near.pairs:,}", f"pairs of near duplicates (perceptual hash, up to {near.max_distance} of 64 bits)"
        )
        findings.add_row(f"{near.groups_across_splits:,}", f"of their {near.groups:,} groups cross a split")
    return [counts, findings]


def predictions_table(rows: list[tuple[Path, str, dict[str, float]]]) -> Table:
    """Return the emotion and the probabilities of each image for a terminal."""
    table = _table("")
    table.add_column("image")
    for heading in ("emotion", *rows[0][2]):
        table.add_column(heading, justify="left" if heading == "emotion" else "right", no_wrap=True)
    for path, emotion, probabilities in rows:
        table.add_row(escape(path.name), emotion, *map(_percent, probabilities.values()))
    return table


def event_line(event: Event, *, num_epochs: int | None) -> str:
    """Return one line for an event of a journal; `num_epochs` is None where the start was not seen."""
    trial = f"trial {event['trial']:>3}"
    match event["event"]:
        case "epoch_ended":
            values = event["metrics"]
            epoch = f"{event['epoch']:>3}" + (f"/{num_epochs}" if num_epochs else "")
            return (
                f"{trial}  epoch {epoch}  val_accuracy {values['val_accuracy']:.4f}  "
                f"train_loss {values['train_loss']:.4f}  {values['images_per_second']:.0f} images/s"
            )
        case "trial_ended":
            return f"{trial}  {event['state']}{'  ' + event['message'] if event['message'] else ''}"
        case _:
            return f"{trial}  started"


def _table(title: str, *, caption: str | None = None) -> Table:
    return Table(
        title=escape(title),
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # the figures of seven emotions must fit on 80 columns
        pad_edge=False,
    )


def _percent(value: float | None) -> str:
    return "" if value is None else f"{value:.1%}"


def _short(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
