"""Optuna's storage: each search is shown as a study too, for optuna-dashboard and Optuna's own analyses.

Nothing is decided by what is in it: a search goes on from its journal alone.
"""

import logging
from collections import Counter
from collections.abc import Callable, Container, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from optuna.distributions import BaseDistribution
from optuna.storages import RDBStorage
from optuna.study import StudyDirection
from optuna.trial import FrozenTrial, TrialState, create_trial

from fer_search.journal import Event

logger = logging.getLogger(__name__)

FILE_NAME = "optuna.db"
BUSY_SECONDS = 20
"""How long SQLite waits for another search that writes, before the event is tried again later."""


class StudyMirror:
    """Receives the events of a search's journal, in order and possibly again after a restart, and keeps its study.

    The study has the search's name, unless another search has taken it in this file. A trial that waits at a rung, or
    for the search to be resumed, is WAITING, since an ended one cannot be opened again; Optuna lets it start when it
    last went on. It ends at the time that its end is received. `attributes_of` gives the user attributes that follow
    from a trial's parameters; its cost, in a search for two objectives, is another one.
    """

    def __init__(
        self,
        path: Path,
        *,
        search_id: str,
        name: str,
        metric: str,
        domains: Mapping[str, BaseDistribution],
        attributes_of: Callable[[Mapping[str, Any]], dict[str, str]],
    ) -> None:
        self.path, self.search_id, self.name, self.metric = path, search_id, name, metric
        self.domains, self.attributes_of = domains, attributes_of
        self._storage: RDBStorage | None = None
        self._study_id = 0
        self._trials: dict[int, FrozenTrial] = {}
        self._num_epochs: Counter[int] = Counter()  # of each trial, as far as the journal has been received

    def receive(self, event: Event) -> None:
        """Bring the study up to date with one event of the journal; after an exception it can be tried again."""
        try:
            if self._storage is None:
                self._storage = self._connect()
            if event["event"] == "trial_started":
                self._start_trial(self._storage, event)
            elif not self._trials[event["trial"]].state.is_finished():
                self._change_trial(self._storage, self._trials[event["trial"]], event)
        except Exception:
            self._storage = None  # a call that failed here may have been done there: look again at what there is
            raise

    def close(self) -> None:
        """Let what still runs wait, when the search has ended or was interrupted. Never raises."""
        if self._storage is None:  # nothing came, or the file is no data base
            return
        try:
            for trial in self._trials.values():
                self._set_state(self._storage, trial, TrialState.WAITING)
        except Exception as error:  # whatever is wrong with the file, the search is done and must be reported
            logger.warning("Optuna's storage: %s: trials of %s are left RUNNING", error, self.name)

    def _connect(self) -> RDBStorage:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        storage = RDBStorage(f"sqlite:///{self.path}", {"connect_args": {"timeout": BUSY_SECONDS}})
        self._study_id = self._find_or_make_study(storage)
        self._trials = {trial.number: trial for trial in storage.get_all_trials(self._study_id)}
        return storage

    def _find_or_make_study(self, storage: RDBStorage) -> int:
        owners = {study.study_name: study.user_attrs.get("search_id") for study in storage.get_all_studies()}
        own_names = (self.name, f"{self.name}-{self.search_id[:8]}")
        name = next((name for name, owner in owners.items() if owner == self.search_id), None)
        if name is None:
            name = next(name for name in own_names if owners.get(name) is None and _is_empty(storage, name, owners))
            if name not in owners:
                storage.create_new_study([StudyDirection.MAXIMIZE], name)
        study_id = storage.get_study_id_from_name(name)
        storage.set_study_user_attr(study_id, "search_id", self.search_id)
        storage.set_study_user_attr(study_id, "metric", self.metric)
        return study_id

    def _start_trial(self, storage: RDBStorage, event: Event) -> None:
        if event["trial"] in self._trials:
            return
        trial = create_trial(
            state=TrialState.RUNNING,
            params=event["point"],
            distributions={name: self.domains[name] for name in event["point"]},
            user_attrs=self.attributes_of(event["parameters"]) | {key: event[key] for key in ("cost",) if key in event},
        )
        trial.datetime_start = datetime.fromtimestamp(event["time"])
        self._trials[event["trial"]] = storage.get_trial(storage.create_new_trial(self._study_id, trial))

    def _change_trial(self, storage: RDBStorage, trial: FrozenTrial, event: Event) -> None:
        """Bring a trial that has not ended up to date."""
        values = trial.intermediate_values
        # What came before an epoch that is known is old, and received again after a restart.
        is_news = self._num_epochs[trial.number] >= max(values, default=0)
        match event["event"]:
            case "epoch_ended":
                self._num_epochs[trial.number] = event["epoch"]
                if event["epoch"] not in values:
                    self._set_state(storage, trial, TrialState.RUNNING)  # no other event says so after a kill
                    value = event["metrics"][self.metric]
                    storage.set_trial_intermediate_value(trial._trial_id, event["epoch"], value)
                    values[event["epoch"]] = value
            case "trial_paused" if is_news:
                self._set_state(storage, trial, TrialState.WAITING)
            case "trial_promoted" | "trial_resumed" if is_news:
                self._set_state(storage, trial, TrialState.RUNNING)
            case "trial_ended":
                state = TrialState[event["state"]]
                if event["message"]:
                    storage.set_trial_user_attr(trial._trial_id, "message", event["message"])
                last = [values[max(values)]] if values and state != TrialState.FAIL else None
                storage.set_trial_state_values(trial._trial_id, state, last)
                trial.state = state

    def _set_state(self, storage: RDBStorage, trial: FrozenTrial, state: TrialState) -> None:
        """Change the state of a trial that has not ended."""
        if trial.state != state and not trial.state.is_finished():
            storage.set_trial_state_values(trial._trial_id, state)
            trial.state = state


def _is_empty(storage: RDBStorage, name: str, known: Container[str]) -> bool:
    """Return whether the study is not there or nobody's yet, as when its making was cut off."""
    return name not in known or storage.get_n_trials(storage.get_study_id_from_name(name)) == 0
