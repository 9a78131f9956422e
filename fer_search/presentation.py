"""What MLflow shows of a search beside its journals: descriptions, who is best, figures, files, a saved view.

All of it follows from what is on disk, and sending it again changes nothing: each stage sends it when it has ended, and
`sync` whenever it is asked to. A server that is slow or away costs a warning, SECONDS at the most, and nothing else.
"""

import logging
import threading
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import TrialRecord, read_events
from fer_search.long_trainings import (
    RETRAIN,
    SPLITS,
    LongTraining,
    best_of_seeds,
    read_retraining,
    retrain_directory,
)
from fer_search.runs import FIGURES, RACE, REPORT, RESULT, SETTINGS, read_json
from fer_search.saved_view import TAG, saved_view
from fer_search.search_note import race_note, search_note, training_note
from fer_search.search_result import SearchResult
from fer_search.standings import finalist_directory
from fer_search.tracking import Epoch, TrackedRun, Tracker
from fer_search.tracking_links import Links, write_links
from fer_search.tracking_state import NOTE, read_tracking_state
from fer_search.tuning.race import Standing

SECONDS = 60.0
NUM_RANKED = 5
MARKS = ("rank", "best")
FIGURE_NAMES = ("accuracy", "accuracy_low", "accuracy_high", "macro_f1")

logger = logging.getLogger(__name__)


def present(result: SearchResult, *, uri: str | None = None) -> None:
    """Show a search as it stands on disk in its MLflow store, or in the one at `uri`, and keep its links on disk."""
    if uri is None and read_tracking_state(result.directory).error:
        return  # it has been said that the store does not have the search
    tracker = Tracker(uri or result.settings["tracking_uri"])
    _in_time(lambda: _send_search(tracker, result), f"fer-search sync {result.name}")


def present_training(directory: Path, *, uri: str | None = None) -> None:
    """Show the figures of the finished training in a directory in its MLflow store, or in the one at `uri`."""
    if uri is None and read_tracking_state(directory).error:
        return
    tracker = Tracker(uri or read_json(directory / SETTINGS)["tracking_uri"])
    (training,) = read_retraining(directory)
    _in_time(lambda: _send_training(tracker, training), f"fer-search sync {directory.name}")


def best_trial(result: SearchResult) -> TrialRecord | None:
    """Return the leader of the race, or without one the best trial so far; None before the first epoch."""
    standings, board = result.standings(), _ranked(result)
    if standings and not standings[0].failed:
        return next(trial for trial in result.trials if trial.number == standings[0].trial)
    return board[0] if board else None


def _in_time(send: Callable[[], None], command: str) -> None:
    """Call `send` and come back within SECONDS, whatever becomes of it."""
    problems: list[str] = []

    def attempt() -> None:
        try:
            send()
        except Exception as error:  # whatever a tracking server answers, all of it is on disk
            problems.append(str(error))

    thread = threading.Thread(target=attempt, name="presentation", daemon=True)
    thread.start()
    thread.join(SECONDS)
    if thread.is_alive():
        problems.append(f"no end within {SECONDS:.0f} s")
    if problems:
        logger.warning("MLflow: %s: it lacks descriptions and files; %s will send them", problems[0], command)


def _send_search(tracker: Tracker, result: SearchResult) -> None:
    search_id, metric = result.settings["search_id"], result.space.metric
    runs = tracker.find_runs(search_id)
    if "search" not in runs:
        return
    view_id, view = saved_view(result)
    tracker.tag_experiment({f"{TAG}{view_id}": view})
    ranked, best, run = _ranked(result)[:NUM_RANKED], best_trial(result), runs["search"].id
    side_by_side = [runs[key].id for trial in ranked if (key := _key(trial.number)) in runs]
    links = Links.of(tracker.uri, tracker.experiment_id, run=run, view=view_id, best=side_by_side)
    marks = {_key(trial.number): {"rank": str(place)} for place, trial in enumerate(ranked, start=1)}
    if best is not None:
        marks.setdefault(_key(best.number), {})["best"] = "true"
    tracker.mark(search_id, marks, names=MARKS)
    _send_race(tracker, result, runs)
    for path in sorted(result.directory.glob(f"{RETRAIN}*")):
        for training in read_retraining(path):
            _send_training(tracker, training)
    epochs = []
    if ranked:
        epochs.append(Epoch(0, _last_time(result.directory), {f"best_{metric}": ranked[0].epochs[-1][metric]}))
    if winner := read_retraining(retrain_directory(result.directory, None)):
        time = max(_last_time(training.directory) for training in winner)
        epochs.append(Epoch(0, time, _figures(best_of_seeds(winner), "public")))
    tracker.log(run, epochs=epochs, tags={NOTE: search_note(result, links)})
    report = result.directory / REPORT
    for each in [run, *(_run_of(tracker, training) for training in winner)]:
        if report.exists() and each is not None:
            tracker.store(each, REPORT, sorted(report.iterdir()))
    write_links(result.directory, links)


def _send_race(tracker: Tracker, result: SearchResult, runs: Mapping[str, TrackedRun]) -> None:
    standings, race = result.standings(), result.directory / RACE
    if not standings:
        return
    of_race = tracker.find_runs(read_json(race / SETTINGS)["search_id"])
    if "search" in of_race:
        tracker.log(of_race["search"].id, tags={NOTE: race_note(result.name, standings)})
    time = _last_time(race)
    for standing in standings:
        if (key := _key(standing.trial)) in runs:
            tracker.log(runs[key].id, epochs=[Epoch(0, time, _race_figures(standing))])
            _store_directory(tracker, runs[key].id, "finalist", finalist_directory(race, standing.trial))


def _send_training(tracker: Tracker, training: LongTraining) -> None:
    run = _run_of(tracker, training)
    if run is None:
        return
    figures: dict[str, float] = {}
    for split in SPLITS:
        figures |= _figures(training, split)
    tracker.log(run, epochs=[Epoch(0, _last_time(training.directory), figures)], tags={NOTE: training_note(training)})
    _store_directory(tracker, run, FIGURES, training.directory / FIGURES)
    tracker.store(run, FIGURES, [training.directory / RESULT])


def _run_of(tracker: Tracker, training: LongTraining) -> str | None:
    settings = read_json(training.directory / SETTINGS)
    run = tracker.find_runs(settings["search_id"]).get(settings["kind"])
    return None if run is None else run.id


def _store_directory(tracker: Tracker, run: str, folder: str, directory: Path) -> None:
    if directory.exists():
        tracker.store(run, folder, sorted(directory.iterdir()))


def _figures(training: LongTraining, split: str) -> dict[str, float]:
    """Return the figures of a split with the chosen views; names of their own, beside those of each epoch."""
    metrics: Mapping[str, Any] = training.result["metrics"].get(split, {})
    found = metrics.get(training.result["prediction"]["views"], {})
    return {f"{split}_{name}": found[name] for name in FIGURE_NAMES if name in found}


def _race_figures(standing: Standing) -> dict[str, float]:
    if standing.failed or not standing.scores:
        return {}
    return {"race_mean": standing.mean, "race_behind": standing.behind, "race_p_value": standing.p_value}


def _ranked(result: SearchResult) -> list[TrialRecord]:
    metric = result.space.metric
    return [t for t in result.leaderboard() if t.state != "FAIL" and t.last(metric) is not None]


def _last_time(directory: Path) -> float:
    """Return when the last event of a run happened: what is sent of it then is of no other time when it is sent again.

    MLflow takes a metric of the same value, time and step once.
    """
    return max((event["time"] for event, _ in read_events(directory / JOURNAL)), default=0.0)


def _key(trial: int) -> str:
    return f"trial/{trial}"
