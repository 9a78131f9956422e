"""MLflow: a parent run per search, a child per trial, a run per training, found again by their tags after a restart."""

import logging
import os
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import mlflow
import mlflow.onnx
import onnx
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.tracking import MlflowClient

from fer_search.errors import InvalidInput, problem

logger = logging.getLogger(__name__)

EXPERIMENT = "fer_search"
REGISTERED_MODEL = "fer_search"
SCHEMES = ("http", "https", "sqlite", "postgresql", "mysql", "mssql", "databricks")
STATUS = {"COMPLETE": "FINISHED", "PRUNED": "KILLED", "FAIL": "FAILED"}
"""What MLflow calls the end of a trial: run to the horizon, stopped by the scheduler, diverged or broken."""


def local_store(directory: Path) -> str:
    """Return the URI of the embedded SQLite store in `directory`."""
    return f"sqlite:///{(directory / 'mlflow.db').resolve()}"


def check_uri(uri: str) -> None:
    """Raise InvalidInput for an address that MLflow cannot track to; a server that is merely away is no mistake."""
    scheme = uri.partition(":")[0].partition("+")[0]
    if scheme not in SCHEMES:
        rule = f"must begin with one of {', '.join(f'{known}:' for known in SCHEMES)}"
        raise InvalidInput(problem("command line", "tracking-uri", rule, uri))


class Tracker:
    """A connection to one MLflow store, made at the first call. Runs are addressed by a key of ours, kept as a tag."""

    def __init__(self, uri: str) -> None:
        self.uri = uri
        self._client: MlflowClient | None = None
        self._experiment_id = ""

    @property
    def client(self) -> MlflowClient:
        """The connected client; a server that does not answer fails within seconds, not minutes."""
        if self._client is None:
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_MAX_RETRIES", "1")
            os.environ.setdefault("MLFLOW_HTTP_REQUEST_TIMEOUT", "10")
            logging.getLogger("alembic").setLevel(logging.WARNING)
            client = MlflowClient(self.uri)
            experiment = client.get_experiment_by_name(EXPERIMENT)
            self._experiment_id = experiment.experiment_id if experiment else self._create_experiment(client)
            if experiment and experiment.lifecycle_stage == "deleted":
                client.restore_experiment(self._experiment_id)
            self._client = client
        return self._client

    def find_runs(self, search_id: str) -> dict[str, str]:
        """Return the ids of all runs of one search by their keys."""
        runs: dict[str, str] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self._experiment_id],
                f"tags.`fer_search.search_id` = '{search_id}'",
                ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            runs |= {run.data.tags["fer_search.key"]: run.info.run_id for run in page}
            token = page.token
            if not token:
                return runs

    def create_run(
        self,
        *,
        search_id: str,
        key: str,
        name: str,
        time: float,
        tags: Mapping[str, str],
        parent: str | None = None,
    ) -> str:
        """Create a run and return its id; `time` is in seconds since the epoch."""
        all_tags = {"fer_search.search_id": search_id, "fer_search.key": key, **tags}
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        client = self.client
        run = client.create_run(self._experiment_id, int(time * 1000), all_tags, run_name=name)
        return str(run.info.run_id)

    def log_params(self, run_id: str, params: Mapping[str, Any]) -> None:
        """Log all parameters of a run; doing it again with the same values changes nothing."""
        self.client.log_batch(run_id, params=[Param(key, str(value)) for key, value in params.items()])

    def log_epoch(self, run_id: str, *, epoch: int, metrics: Mapping[str, float], time: float) -> None:
        """Log an epoch in one call; doing it again with the same values changes nothing."""
        stamp = int(time * 1000)
        self.client.log_batch(run_id, metrics=[Metric(name, value, stamp, epoch) for name, value in metrics.items()])

    def set_tags(self, run_id: str, tags: Mapping[str, str]) -> None:
        """Set tags of a run."""
        self.client.log_batch(run_id, tags=[RunTag(key, value) for key, value in tags.items()])

    def end_run(self, run_id: str, status: str, *, time: float | None = None) -> None:
        """End a run as FINISHED, KILLED or FAILED."""
        self.client.set_terminated(run_id, status, None if time is None else int(time * 1000))

    def set_status(self, run_id: str, status: str) -> None:
        """Mark a run as RUNNING (again), or as SCHEDULED while it waits at a rung."""
        self.client.update_run(run_id, status=status)

    def status(self, run_id: str) -> str:
        """Return a run's status."""
        return str(self.client.get_run(run_id).info.status)

    def register_bundle(self, search_id: str, key: str, bundle: Path, *, model_file: str) -> str | None:
        """Store a bundle with its training's run, register its ONNX model, and return `name/version`.

        Returns None, with a warning, where the server does not take it: the bundle itself is complete without.
        """
        try:
            run_id = self.find_runs(search_id)[key]
            self.client.log_artifacts(run_id, str(bundle), "bundle")
            ended = self.client.get_run(run_id).info
            before = os.environ.get("MLFLOW_TRACKING_URI")
            mlflow.set_tracking_uri(self.uri)  # sets that variable too, which whatever is started next would obey
            try:
                with mlflow.start_run(run_id=run_id):
                    info = mlflow.onnx.log_model(
                        onnx.load(str(bundle / model_file)),
                        name="model",
                        registered_model_name=REGISTERED_MODEL,
                        pip_requirements=["onnxruntime", "numpy"],
                    )
            finally:  # the training ended when it ended, and as it did, whatever became of the registration
                mlflow.set_tracking_uri(before)
                self.client.set_terminated(run_id, ended.status, ended.end_time)
        except Exception as error:  # a registry may be away, forbid it or not exist; none of it spoils the bundle
            logger.warning("MLflow: %s: the model was not registered", error)
            return None
        return f"{REGISTERED_MODEL}/{info.registered_model_version}"

    def _create_experiment(self, client: MlflowClient) -> str:
        location = None
        if self.uri.startswith("sqlite:///"):
            location = (Path(self.uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))


class JournalTracker:
    """Receives the events of a journal, in order and possibly again after a restart, and keeps its runs in MLflow.

    For a search, each trial is a child of one parent run; a single training is one run without a parent. `tags_of`
    gives the tags that follow from a trial's parameters.
    """

    def __init__(
        self,
        tracker: Tracker,
        *,
        search_id: str,
        kind: str,
        name: str,
        tags: Mapping[str, str],
        tags_of: Callable[[Mapping[str, Any]], dict[str, str]],
        parent_params: Mapping[str, Any] | None = None,
    ) -> None:
        self.tracker, self.search_id, self.kind, self.name, self.tags = tracker, search_id, kind, name, tags
        self.tags_of, self.parent_params = tags_of, parent_params
        self._runs: dict[str, str] | None = None
        self._open: dict[int, str] = {}

    def connect(self) -> None:
        """Connect now: making a new store keeps Python busy for seconds, which would slow a training beside it."""
        try:
            _ = self.tracker.client
        except Exception as error:  # the follower will try again, and the training need not wait
            logger.warning("MLflow: %s", error)

    def receive(self, event: dict[str, Any]) -> None:
        """Bring MLflow up to date with one event of the journal; after an exception it can be tried again."""
        number, time = event["trial"], event["time"]
        try:
            if self._runs is None:
                self._runs = self._find_or_start_parent(time)
            match event["event"]:
                case "trial_started":
                    self._open_trial(self._runs, event)
                case "epoch_ended" if number in self._open:
                    self.tracker.log_epoch(
                        self._open[number], epoch=event["epoch"], metrics=event["metrics"], time=time
                    )
                case "trial_paused" if number in self._open:
                    self.tracker.set_status(self._open[number], "SCHEDULED")
                case "trial_promoted" | "trial_resumed" if number in self._open:
                    self.tracker.set_status(self._open[number], "RUNNING")
                case "trial_ended":
                    run_id = self._runs[self._key(number)]
                    self.tracker.set_tags(run_id, {"state": event["state"], "message": event["message"]})
                    self.tracker.end_run(run_id, STATUS[event["state"]], time=time)
                    self._open.pop(number, None)
        except Exception:
            self._runs = None  # a call that failed here may have been done there: look again at what there is
            raise

    def run_id(self, key: str) -> str | None:
        """Return the id of a run: `search`, `trial/<number>`, or the kind of a single training."""
        return (self._runs or {}).get(key)

    def close(self, status: str) -> None:
        """End the run, or the parent run and, as KILLED, its open trials; a resumed search opens them. Never raises."""
        try:
            for run_id in self._open.values():
                self.tracker.end_run(run_id, "KILLED" if self.parent_params is not None else status)
            if parent := self.run_id("search"):
                self.tracker.end_run(parent, status)
        except Exception as error:  # whatever a tracking server answers, the search is done and must be reported
            logger.warning("MLflow: %s: the runs of %s were not closed", error, self.name)

    def _find_or_start_parent(self, time: float) -> dict[str, str]:
        runs = self.tracker.find_runs(self.search_id)
        if self.parent_params is not None:
            if "search" not in runs:
                runs["search"] = self.tracker.create_run(
                    search_id=self.search_id, key="search", name=self.name, time=time,
                    tags={**self.tags, "kind": self.kind},
                )  # fmt: skip
            self.tracker.log_params(runs["search"], self.parent_params)
            self.tracker.set_status(runs["search"], "RUNNING")
        return runs

    def _open_trial(self, runs: dict[str, str], event: Mapping[str, Any]) -> None:
        number, parameters = event["trial"], event["parameters"]
        child = self.parent_params is not None
        key = self._key(number)
        if key not in runs:
            runs[key] = self.tracker.create_run(
                search_id=self.search_id,
                key=key,
                name=f"trial {number:05d}" if child else self.name,
                time=event["time"],
                tags={**self.tags, **self.tags_of(parameters), "kind": "trial" if child else self.kind},
                parent=runs["search"] if child else None,
            )
        elif self.tracker.status(runs[key]) == "FINISHED":
            return  # complete before the restart
        cost = {"cost": event["cost"]} if "cost" in event else {}
        self.tracker.log_params(runs[key], {**parameters, **cost})
        self.tracker.set_status(runs[key], "RUNNING")
        self._open[number] = runs[key]

    def _key(self, number: int) -> str:
        return self.kind if self.parent_params is None else f"trial/{number}"
