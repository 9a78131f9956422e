"""What a person reads: figures and audit as terminal tables, and one line per event of a journal."""

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

from rich import box
from rich.cells import cell_len
from rich.markup import escape
from rich.table import Table

from fer_search.journal import Event

if TYPE_CHECKING:
    from fer_search.data.audit import Audit
    from fer_search.pictures import Box
    from fer_search.predict import Prediction
    from fer_search.training.model_summary import ModelSummary

MOST_COLUMNS = 12
"""Of a table with a column for each class."""
TARGET_ACCURACY = 0.79
"""What the project's design aims for on PublicTest."""
NUM_PUBLIC_IMAGES = 3_589
STATE_STYLES = {"COMPLETE": "green", "PRUNED": "yellow", "FAIL": "red", "RUNNING": "cyan", "PAUSED": "blue"}
STATE_WORDS = {"RUNNING": "running", "PAUSED": "waiting", "PRUNED": "stopped", "COMPLETE": "complete", "FAIL": "failed"}


def summary_table(rows: list[tuple[str, str, bool, Mapping[str, Any]]], *, title: str, caption: str) -> Table:
    """Return a line of figures for each (what was measured, views, whether they are the chosen ones, figures)."""
    notes = "* the chosen views. ECE: calibration error; scaled: after temperature scaling."
    table = new_table(title, caption=f"{notes}\n{escape(caption)}")
    table.add_column("", overflow="fold")
    for heading in ("views", "images", "accuracy", "95 % interval", "macro-F1", "ECE", "scaled"):
        table.add_column(heading, justify="left" if heading == "views" else "right", no_wrap=True)
    for name, views, is_chosen, figures in rows:
        table.add_row(
            escape(name),
            f"{views}{'*' if is_chosen else ''}",
            f"{figures['num_images']:,}",
            f"{figures['accuracy']:.2%}",
            f"{figures['accuracy_low'] * 100:.1f} - {figures['accuracy_high'] * 100:.1f}",
            f"{figures['macro_f1']:.3f}",
            percent(figures["calibration_error"]),
            percent(figures["calibrated"]["calibration_error"]),
        )
    return table


def training_table(result: Mapping[str, Any], *, title: str) -> Table:
    """Return a line of figures for each split and view set of a finished training."""
    views, metrics = result["prediction"]["views"], result["metrics"]
    rows = [
        (split, each, each == views, metrics[split][each])
        for split in ("validation", "public", "public_unique")
        if split in metrics
        for each in ("plain", "tta")
    ]
    caption = (
        "validation: search-validation chose epoch, views and temperature: optimistic.\n"
        f"public: {result['data']['public_label']}.\npublic_unique: its images without a copy in Training, each once."
    )
    return summary_table(rows, title=title, caption=caption)


def figures_table(figures: Mapping[str, Any], *, title: str) -> Table:
    """Return precision, recall and confusion per class; rows are the true class, columns the predicted one.

    The confusion of more classes than a terminal has room for is left out.
    """
    from fer_search.training.metrics import classes_of, summary

    classes = classes_of(figures)
    shown = classes if len(classes) <= MOST_COLUMNS else ()
    table = new_table(title, caption=summary(figures) + ("\nrows: true class, columns: predicted" if shown else ""))
    table.add_column("class")
    for heading in ("prec.", "recall", *map(escape, shown)):
        table.add_column(heading, justify="right")
    for name, counts in zip(classes, figures["confusion"], strict=True):
        cells = [percent(figures["precision"][name]), percent(figures["recall"][name])]
        table.add_row(escape(name), *cells, *map(str, counts if shown else ()))
    return table


def target_line(figures: Mapping[str, Any], *, label: str) -> str | None:
    """Return how far the accuracy on FER2013's own PublicTest is from the design's target; None for other images."""
    if label != "PublicTest" or figures["num_images"] != NUM_PUBLIC_IMAGES:
        return None
    return f"target {TARGET_ACCURACY:.0%} on FER2013: {(figures['accuracy'] - TARGET_ACCURACY) * 100:+.1f} points"


def paired_lines(paired: Mapping[str, Any]) -> list[str]:
    """Return what a paired test of two models says, first minus second."""
    p = paired["mcnemar_p"]
    verdict = "more than chance at the 5 % level" if p < 0.05 else "no more than chance explains"
    return [
        f"accuracy {_difference(paired['accuracy_difference'])}",
        f"macro-F1 {_difference(paired['macro_f1_difference'])}",
        f"only the first is right on {paired['only_first_correct']:,} images, only the second on "
        f"{paired['only_second_correct']:,}: {verdict} (exact McNemar p = {p:.2g})",
    ]


def leak_line(probe: Mapping[str, float]) -> str:
    """Return how much of the class a classifier could read off the augmentation of a blank image."""
    interval = f"95 % interval {probe['low']:.1%} to {probe['high']:.1%}"
    limits = f"by chance {probe['chance']:.1%}, at best {probe['bound']:.1%}"
    return f"label leak: {probe['accuracy']:.1%} of augmented blank images are told apart ({interval}; {limits})"


def model_table(summary: "ModelSummary") -> Table:
    """Return the parts of a network for a terminal; heads that only training uses have no FLOPs."""
    table = new_table("")
    for heading in ("part", "parameters", "MFLOPs"):
        table.add_column(heading, justify="left" if heading == "part" else "right")
    for part in (*summary.parts, summary.total):
        table.add_row(part.name, f"{part.num_parameters:,}", f"{part.flops / 1e6:.1f}")
    return table


def maps_line(summary: "ModelSummary") -> str:
    """Return the sizes of the maps that the backbone makes of a face."""
    maps = ", ".join(f"{channels} x {height} x {width}" for channels, height, width in summary.maps)
    return f"the backbone's maps: {maps}"


def audit_tables(found: "Audit", *, title: str) -> list[Table]:
    """Return class counts and what the audit found for a terminal."""
    counts = new_table(title, caption=f"fingerprint {found.fingerprint}")
    rows = [["split", *next(iter(found.counts.values())), "total"]]
    for usage, by_class in found.counts.items():
        rows.append([usage, *(f"{count:,}" for count in (*by_class.values(), sum(by_class.values())))])
    if len(rows[0]) > MOST_COLUMNS:
        rows = [list(row) for row in zip(*rows, strict=True)]
    for place, heading in enumerate(rows[0]):
        counts.add_column(escape(heading), justify="right" if place else "left")
    for row in rows[1:]:
        counts.add_row(*map(escape, row))
    findings = new_table("what to know about it")
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


def predictions_table(predictions: "Sequence[Prediction]", *, with_box: bool) -> Table:
    """Return the emotion and the probabilities of each face for a terminal, on demand with where it is."""
    table = new_table("")
    table.add_column("image", overflow="fold")
    if with_box:
        table.add_column("face", min_width=7, overflow="fold")  # which a narrow terminal breaks between place and size
    table.add_column("emotion", no_wrap=True)
    for name in next((each.probabilities for each in predictions if each.probabilities), ()):
        table.add_column(escape(name), justify="right", no_wrap=True)
    for each in predictions:
        box = "" if each.box is None else "{:.0f},{:.0f} {:.0f}x{:.0f}".format(*each.box[:2], *_extent(each.box))
        emotion = "no face" if each.emotion is None else escape(each.emotion)
        table.add_row(
            escape(each.source.name), *([box] if with_box else []), emotion, *map(percent, each.probabilities.values())
        )
    return table


def _extent(box: "Box") -> tuple[float, float]:
    return box[2] - box[0], box[3] - box[1]


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
        case "trial_paused":
            return f"{trial}  waits"
        case "trial_resumed":
            return f"{trial}  goes on"
        case "trial_promoted":
            return f"{trial}  goes on after epoch {event['rung']}"
        case "trial_retried":
            return f"{trial}  failed and is tried again  {event['message']}"
        case "trial_widened":
            return f"{trial}  runs out of memory beside others and gets {event['places']} places"
        case "trial_ended":
            return f"{trial}  {event['state']}{'  ' + event['message'] if event['message'] else ''}"
        case _:
            match event.get("point"):
                case {"trial": entrant, "seed": seed}:  # a race counts its trainings from 0
                    return f"{trial}  started: trial {entrant} of the search, with seed {seed}"
            return f"{trial}  started"


def new_table(title: str, *, caption: str | None = None) -> Table:
    """Return an empty table in the style of all tables."""
    return Table(
        title=escape(title),
        min_width=cell_len(title),  # or a title longer than its table is broken anywhere
        title_justify="left",
        caption=caption,
        caption_justify="left",
        box=box.SIMPLE_HEAD,
        padding=(0, 1, 0, 0),  # the figures of seven emotions must fit on 80 columns
        pad_edge=False,
    )


def _difference(difference: Mapping[str, float]) -> str:
    value, low, high = (difference[key] * 100 for key in ("value", "low", "high"))
    return f"{value:+.2f} points (95 % interval {low:+.2f} to {high:+.2f})"


def percent(value: float | None) -> str:
    """Return a share for a table's cell; empty where there is none."""
    return "" if value is None else f"{value:.1%}"


def short_value(value: object) -> str:
    """Return a parameter's value for a table's cell, a number with four digits."""
    return f"{value:.4g}" if isinstance(value, float) else str(value)
