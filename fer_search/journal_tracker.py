"""A journal in MLflow: a parent run per search, a child per trial, a run per single training."""

import logging
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from fer_search.journal import Event, TrialRecord
from fer_search.tracking import Epoch, TrackedRun, Tracker
from fer_search.tracking_state import NOTE, RUNNING, RunDescription

logger = logging.getLogger(__name__)

STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""What MLflow calls the end of a trial: run to the horizon, stopped by the scheduler, diverged or broken."""
STATUS_AFTER = {
    "trial_started": RUNNING,
    "epoch_ended": RUNNING,  # no other event says that a trial goes on after a kill
    "trial_promoted": RUNNING,
    "trial_resumed": RUNNING,
    "trial_paused": "SCHEDULED",
}


class JournalTracker:
    """Keeps the runs of a journal in MLflow: receives its events in order, many at once and possibly again.

    Where the journal has been sent up to some point, `trials` are those that are known from before it. `tags_of` gives
    the tags that follow from a trial's parameters. A run that was deleted in MLflow stays deleted.
    """

    def __init__(
        self,
        tracker: Tracker,
        description: RunDescription,
        *,
        tags_of: Callable[[Mapping[str, Any]], dict[str, str]],
        trials: Iterable[TrialRecord] = (),
    ) -> None:
        self.tracker, self.description, self.tags_of = tracker, description, tags_of
        self._runs: dict[str, TrackedRun] | None = None
        self._open = {trial.number for trial in trials if not trial.ended}
        self._last_time = 0.0

    def receive(self, events: Sequence[Event]) -> None:
        """Bring MLflow up to date with these events of the journal; after an exception they can be tried again."""
        news: dict[int, list[Event]] = {}
        for event in events:
            news.setdefault(event["trial"], []).append(event)
            self._last_time = max(self._last_time, event["time"])
        try:
            if self._runs is None:
                self._runs = self._find_or_start_parent(events[0]["time"])
            for number, of_trial in news.items():
                self._bring_up_to_date(self._runs, number, of_trial)
        except Exception:
            self._runs = None  # a call that failed here may have been done there: look again at what there is
            raise

    def close(self, status: str) -> None:
        """End the run, or the parent run and, as KILLED, its open trials; a resumed search opens them again."""
        if self._runs is None:
            self._runs = self._find_or_start_parent(self._last_time)
        for number in self._open:
            self._set_status(self._runs, self._key(number), "KILLED" if self._has_children else status)
        if self._has_children:
            self._set_status(self._runs, "search", status)

    @property
    def _has_children(self) -> bool:
        return self.description.parent_params is not None

    def _find_or_start_parent(self, time: float) -> dict[str, TrackedRun]:
        described = self.description
        runs = self.tracker.find_runs(described.search_id)
        if described.parent_params is not None:
            if "search" not in runs:
                runs["search"] = self.tracker.create_run(
                    search_id=described.search_id, key="search", name=described.title, time=time,
                    tags={**described.tags, "kind": described.kind, **_note(described.note)},
                )  # fmt: skip
            self.tracker.log(runs["search"].id, params=described.parent_params)
            self._set_status(runs, "search", RUNNING)
        return runs

    def _bring_up_to_date(self, runs: dict[str, TrackedRun], number: int, events: Sequence[Event]) -> None:
        key = self._key(number)
        if events[0]["event"] == "trial_started" and key not in runs:
            runs[key] = self._create(runs, number, events[0])
        if key not in runs:
            return
        params, tags, epochs, status = {}, {}, [], runs[key].status
        for event in events:
            match event["event"]:
                case "trial_started":
                    params = {**event["parameters"], **{name: event[name] for name in ("cost",) if name in event}}
                    self._open.add(number)
                case "epoch_ended":
                    epochs.append(Epoch(event["epoch"], event["time"], event["metrics"]))
                case "trial_ended":
                    tags = {"state": event["state"], "message": event["message"]}
                    self._open.discard(number)
            status = STATUS[event["state"]] if tags else STATUS_AFTER.get(event["event"], status)
        if epochs or params or tags:
            self.tracker.log(runs[key].id, epochs=epochs, params=params, tags=tags)
        self._set_status(runs, key, status, time=events[-1]["time"])

    def _create(self, runs: Mapping[str, TrackedRun], number: int, started: Event) -> TrackedRun:
        described = self.description
        return self.tracker.create_run(
            search_id=described.search_id,
            key=self._key(number),
            name=self._name(number, started.get("point", {})),
            time=started["time"],
            tags={
                **described.tags,
                **self.tags_of(started["parameters"]),
                **_note(point_note(started.get("point", {}))),
                "kind": "trial" if self._has_children else described.kind,
            },
            parent=runs["search"].id if self._has_children else None,
        )

    def _name(self, number: int, point: Mapping[str, Any]) -> str:
        if not self._has_children:
            return self.description.title
        if self.description.kind == "race":  # whose trainings are of the search's trials
            return f"trial {point['trial']:05d}, seed {point['seed']}"
        return f"trial {number:05d}"

    def _set_status(self, runs: dict[str, TrackedRun], key: str, status: str, *, time: float | None = None) -> None:
        if key in runs and runs[key].status != status:
            self.tracker.set_status(runs[key].id, status, time=self._last_time if time is None else time)
            runs[key] = TrackedRun(runs[key].id, status)

    def _key(self, number: int) -> str:
        return f"trial/{number}" if self._has_children else self.description.kind


def point_note(point: Mapping[str, Any]) -> str:
    """Return the description of a trial's run: what was chosen for it."""
    shown = {name: f"{value:.4g}" if isinstance(value, float) else str(value) for name, value in point.items()}
    return ", ".join(f"`{name}` {value}" for name, value in shown.items())


def _note(text: str) -> dict[str, str]:
    return {NOTE: text} if text else {}
