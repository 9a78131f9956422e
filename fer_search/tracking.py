"""A connection to an MLflow store: runs found again by their tags, and what is written to them in batches."""

import logging
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from mlflow.entities import Experiment, Metric, Param, Run, RunTag, ViewType
from mlflow.exceptions import MlflowException
from mlflow.tracking import MlflowClient

from fer_search.errors import first_line

EXPERIMENT = "fer_search"
EXPERIMENT_TAGS = {
    "mlflow.experimentKind": "custom_model_development",  # or the UI looks for conversations with language models
    "mlflow.note.content": "Searches of fer_search, a parent run each, with a child per trial; a race and the long "
    "trainings are runs beside it. The description of a search's run says how it stands, and links to its trials.",
}
ENDED = ("FINISHED", "KILLED", "FAILED")
MOST_METRICS = 1000
MOST_PARAMS = 100
"""What MLflow takes in one call; the parameters count among the metrics."""


@dataclass(frozen=True)
class TrackedRun:
    """A run as MLflow knows it."""

    id: str
    status: str


@dataclass(frozen=True)
class Epoch:
    """The metrics of an epoch, and the time in seconds when it ended."""

    number: int
    time: float
    metrics: Mapping[str, float]


def answer_problem(uri: str) -> str | None:
    """Return why the store does not take what this process may send, or None if it does."""
    try:
        _ = Tracker(uri).client
    except Exception as error:  # MLflow's own, requests', SQLAlchemy's
        return first_line(error)
    return None


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
            experiment = client.get_experiment_by_name(EXPERIMENT) or self._create_experiment(client)
            self._experiment_id = experiment.experiment_id
            if experiment.lifecycle_stage == "deleted":
                client.restore_experiment(self._experiment_id)
            self._client = client
        return self._client

    @property
    def experiment_id(self) -> str:
        """The id of the experiment that all runs are in."""
        _ = self.client
        return self._experiment_id

    def find_runs(self, search_id: str) -> dict[str, TrackedRun]:
        """Return all runs of one search by their keys."""
        return {
            run.data.tags["fer_search.key"]: TrackedRun(run.info.run_id, run.info.status)
            for run in self._search(_of(search_id))
        }

    def create_run(
        self,
        *,
        search_id: str,
        key: str,
        name: str,
        time: float,
        tags: Mapping[str, str],
        parent: str | None = None,
    ) -> TrackedRun:
        """Create a run; `time` is in seconds since the epoch."""
        all_tags = {"fer_search.search_id": search_id, "fer_search.key": key, **tags}
        if parent:
            all_tags["mlflow.parentRunId"] = parent
        client = self.client
        run = client.create_run(self._experiment_id, int(time * 1000), all_tags, run_name=name)
        return TrackedRun(run.info.run_id, run.info.status)

    def log(
        self,
        run_id: str,
        *,
        epochs: Sequence[Epoch] = (),
        params: Mapping[str, Any] | None = None,
        tags: Mapping[str, str] | None = None,
    ) -> None:
        """Log epochs, parameters and tags in as few calls as there may be; again with the same changes nothing."""
        metrics = [
            Metric(name, value, int(epoch.time * 1000), epoch.number)
            for epoch in epochs
            for name, value in epoch.metrics.items()
        ]
        given = [Param(key, str(value)) for key, value in (params or {}).items()]
        labels = [RunTag(key, value) for key, value in (tags or {}).items()]
        first = MOST_METRICS - MOST_PARAMS - len(labels)
        self.client.log_batch(run_id, metrics[:first], given[:MOST_PARAMS], labels)
        for start in range(first, len(metrics), MOST_METRICS):
            self.client.log_batch(run_id, metrics[start : start + MOST_METRICS])
        for start in range(MOST_PARAMS, len(given), MOST_PARAMS):
            self.client.log_batch(run_id, params=given[start : start + MOST_PARAMS])

    def set_status(self, run_id: str, status: str, *, time: float) -> None:
        """Bring a run to a status, which may be its end, and may be RUNNING again."""
        if status in ENDED:
            self.client.set_terminated(run_id, status, int(time * 1000))
        else:
            self.client.update_run(run_id, status=status)

    def store(self, run_id: str, folder: str, files: Iterable[Path]) -> None:
        """Store files in a folder of a run's artifacts; weights, which are large and never change, only once."""
        stored = {each.path: each.file_size for each in self.client.list_artifacts(run_id, folder)}
        for file in files:
            if file.suffix != ".safetensors" or stored.get(f"{folder}/{file.name}") != file.stat().st_size:
                self.client.log_artifact(run_id, str(file), folder)

    def mark(self, search_id: str, wanted: Mapping[str, Mapping[str, str]], *, names: Sequence[str]) -> None:
        """Let of the tags `names` those that are `wanted`, by a run's key, be on the runs of a search, and no others.

        What is not wanted goes first, so that a kill in between leaves a mark on nobody rather than on two.
        """
        runs: dict[str, Run] = {}
        for name in names:
            runs |= {run.info.run_id: run for run in self._search(f"{_of(search_id)} AND tags.`{name}` LIKE '%'")}
        for run in runs.values():
            keep = wanted.get(run.data.tags["fer_search.key"], {})
            for name in names:
                if name in run.data.tags and name not in keep:
                    self.client.delete_tag(run.info.run_id, name)
        found = self.find_runs(search_id)
        for key, tags in wanted.items():
            if key in found:
                self.log(found[key].id, tags=tags)

    def tag_experiment(self, tags: Mapping[str, str]) -> None:
        """Set tags of the experiment that all runs are in."""
        for key, value in tags.items():
            self.client.set_experiment_tag(self.experiment_id, key, value)

    def _search(self, condition: str) -> Iterator[Run]:
        """Yield all runs that are not deleted and for which the condition holds."""
        token = None
        while True:
            page = self.client.search_runs(
                [self.experiment_id], condition, ViewType.ACTIVE_ONLY, max_results=1000, page_token=token
            )
            yield from page
            token = page.token
            if not token:
                return

    def _create_experiment(self, client: MlflowClient) -> Experiment:
        location = None
        if self.uri.startswith("sqlite:///"):
            location = (Path(self.uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
        try:
            client.create_experiment(EXPERIMENT, location, EXPERIMENT_TAGS)
        except MlflowException as error:  # a new server's first callers may be several at once, as nodes that check it
            if error.error_code != "RESOURCE_ALREADY_EXISTS":
                raise
        return cast(Experiment, client.get_experiment_by_name(EXPERIMENT))


def _of(search_id: str) -> str:
    return f"tags.`fer_search.search_id` = '{search_id}'"
