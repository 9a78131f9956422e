"""The record of a search or a training: an append-only file of what happened, one JSON object a line.

The writer only appends; whoever wants to know (tracking, the screen, `compare`) reads the file, from any process, and
so can neither slow nor stop it. Timestamps are made once, here, which makes replaying the file safe. An event is on the
disk before anything follows from it, so that not even a power cut lets a search contradict what it has decided.
"""

import json
import math
import os
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from fer_search.errors import InvalidInput, problem

FILE_NAME = "journal.jsonl"
DIVERGED = "diverged: "
"""What the message of a trial begins with whose loss or metrics were not finite."""
EPOCH_SECONDS = "epoch_seconds"
"""The metric that says how long an epoch took; an objective need not report it."""
TIMINGS = (EPOCH_SECONDS, "images_per_second")
SYSTEM = "system/"
"""What the metrics begin with that say what an epoch took of the machine, as MLflow's own do."""
Event = dict[str, Any]


@dataclass
class TrialRecord:
    """What is known of one trial; `epochs[n]` holds the metrics of epoch n + 1."""

    number: int
    parameters: dict[str, Any]
    started: float
    point: dict[str, Any] = field(default_factory=dict)  # what was searched, in the searcher's terms
    state: str = (
        "RUNNING"  # or PAUSED, at a rung or because time was up; in the end COMPLETE, PRUNED or FAIL, as in Optuna
    )
    message: str = ""
    passed: int = 0  # the last rung that the trial went beyond
    end_time: float | None = None
    epochs: list[dict[str, float]] = field(default_factory=list)
    failures: list[str] = field(default_factory=list)  # after which it was tried again
    failures_in_a_row: int = 0  # without an epoch in between
    lost_nodes_in_a_row: int = 0  # likewise; they are no failures of the trial
    cost: float | None = None  # what the search found it to cost, in a search for two objectives
    places: int = 1  # how many trials' worth of a node it occupies: more than one where memory was short
    place_seconds: float = 0.0  # how long its epochs occupied them, all together

    @property
    def ended(self) -> bool:
        """Whether the trial will never run again."""
        return self.state in ("COMPLETE", "PRUNED", "FAIL")

    @property
    def diverged(self) -> bool:
        """Whether the parameters are to blame for a failure, rather than the machine."""
        return self.state == "FAIL" and self.message.startswith(DIVERGED)

    def last(self, metric: str) -> float | None:
        """Return the metric's last value, or None before the first epoch."""
        return self.epochs[-1].get(metric) if self.epochs else None


class Journal:
    """Appends events to a file and knows which ones are in it, so that a resumed search repeats none.

    `num_epochs` and `place_seconds` are sums over all trials.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trials, self._last_time = _replay(path)
        self.num_epochs = sum(len(record.epochs) for record in self.trials.values())
        self.place_seconds = sum(record.place_seconds for record in self.trials.values())
        self._is_clean = not path.exists()

    def trial_started(
        self,
        number: int,
        parameters: Mapping[str, Any],
        *,
        point: Mapping[str, Any] | None = None,
        cost: float | None = None,
    ) -> None:
        """Record a trial, unless it is there."""
        if number not in self.trials:
            event: Event = {"event": "trial_started", "trial": number, "parameters": dict(parameters)}
            if point is not None:
                event["point"] = dict(point)
            if cost is not None:
                event["cost"] = cost
            self._append(event)

    def epoch_ended(self, number: int, epoch: int, metrics: Mapping[str, float]) -> None:
        """Record an epoch, unless a run before an interruption did so."""
        record = self.trials[number]
        if len(record.epochs) < epoch:
            before = record.place_seconds
            self._append({"event": "epoch_ended", "trial": number, "epoch": epoch, "metrics": dict(metrics)})
            self.num_epochs += 1
            self.place_seconds += record.place_seconds - before

    def trial_widened(self, number: int, places: int) -> None:
        """Record a trial that takes so many trials' places from now on, for want of memory."""
        self._append({"event": "trial_widened", "trial": number, "places": places})

    def trial_paused(self, number: int) -> None:
        """Record a trial that waits, at a rung or for the search to go on."""
        self._append({"event": "trial_paused", "trial": number})

    def trial_resumed(self, number: int) -> None:
        """Record a trial that goes on from where the search was stopped."""
        self._append({"event": "trial_resumed", "trial": number})

    def trial_promoted(self, number: int, rung: int) -> None:
        """Record a trial that goes on beyond a rung."""
        self._append({"event": "trial_promoted", "trial": number, "rung": rung})

    def trial_retried(self, number: int, message: str, *, node_lost: bool = False) -> None:
        """Record a failure, or that the node went away, after which the trial goes on from its last epoch."""
        event = {"event": "trial_retried", "trial": number, "message": message}
        self._append({**event, "node_lost": True} if node_lost else event)

    def trial_ended(self, number: int, state: str, message: str = "") -> None:
        """Record how a trial ended, COMPLETE, PRUNED or FAIL, unless it is known."""
        if not self.trials[number].ended:
            self._append({"event": "trial_ended", "trial": number, "state": state, "message": message})

    def _append(self, event: Event) -> None:
        self._last_time = event["time"] = max(time.time(), self._last_time)  # a clock may be set back
        self.path.parent.mkdir(parents=True, exist_ok=True)
        if not self._is_clean:  # not before: whoever only reads must not cut what another process is writing
            _cut_partial_line(self.path)
            self._is_clean = True
        try:
            with self.path.open("a", encoding="utf-8") as file:
                file.write(json.dumps(event) + "\n")
                file.flush()
                os.fdatasync(file.fileno())
        except OSError as error:
            self._is_clean = False  # there may be half a line
            raise OSError(error.errno, error.strerror, str(self.path)) from error
        apply_event(self.trials, event)


def reproducible(metrics: Mapping[str, float]) -> dict[str, float]:
    """Return the metrics of an epoch that do not differ from run to run: neither timings nor what it took."""
    return {name: value for name, value in metrics.items() if name not in TIMINGS and not name.startswith(SYSTEM)}


def apply_event(trials: dict[int, TrialRecord], event: Event) -> None:
    """Bring the records up to date with one event."""
    number = event["trial"]
    match event["event"]:
        case "trial_started":
            point, cost = event.get("point", {}), event.get("cost")
            trials[number] = TrialRecord(number, event["parameters"], event["time"], point, cost=cost)
        case "epoch_ended":
            trials[number].epochs.append(event["metrics"])
            trials[number].place_seconds += trials[number].places * event["metrics"].get(EPOCH_SECONDS, 0.0)
            trials[number].failures_in_a_row = trials[number].lost_nodes_in_a_row = 0
        case "trial_widened":
            trials[number].places = event["places"]
        case "trial_paused":
            trials[number].state = "PAUSED"
        case "trial_resumed":
            trials[number].state = "RUNNING"
        case "trial_promoted":
            trials[number].state, trials[number].passed = "RUNNING", event["rung"]
        case "trial_retried":
            trials[number].failures.append(event["message"])
            if event.get("node_lost"):
                trials[number].lost_nodes_in_a_row += 1
            else:
                trials[number].failures_in_a_row += 1
        case "trial_ended":
            record = trials[number]
            record.state, record.message, record.end_time = event["state"], event["message"], event["time"]


def read_events(path: Path, *, offset: int = 0) -> Iterator[tuple[Event, int]]:
    """Yield each complete event from a byte offset on, with the offset behind it; a line still being written waits.

    Raises InvalidInput at a damaged line.
    """
    if not path.exists():
        return
    with path.open("rb") as file:
        file.seek(offset)
        for line in file:
            if not line.endswith(b"\n"):
                return
            try:
                event = json.loads(line)
            except (ValueError, RecursionError):
                raise InvalidInput(problem(path, f"byte {offset}", "must begin a line of JSON", line[:40])) from None
            offset += len(line)
            yield event, offset


def read_journal(path: Path, *, until: float = math.inf) -> list[TrialRecord]:
    """Return the trials of a journal by number, as they were at a byte offset if one is given."""
    return list(_replay(path, until)[0].values())


def _replay(path: Path, until: float = math.inf) -> tuple[dict[int, TrialRecord], float]:
    """Return the trials by number, in order, and the time of the last event."""
    trials: dict[int, TrialRecord] = {}
    last_time, end = 0.0, 0
    for event, offset in read_events(path):
        if offset > until:
            break
        try:
            apply_event(trials, event)
            last_time = max(last_time, event["time"])
        except (KeyError, TypeError, AttributeError):
            raise InvalidInput(problem(path, f"byte {end}", "must begin an event of a known trial", event)) from None
        end = offset
    return {number: trials[number] for number in sorted(trials)}, last_time


def _cut_partial_line(path: Path) -> None:
    """Remove what a killed process had begun to write."""
    complete = 0
    for _, end in read_events(path):
        complete = end
    with path.open("r+b") as file:
        file.truncate(complete)
