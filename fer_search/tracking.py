"""A connection to an MLflow store: runs found again by their tags, and what is written to them in batches."""

import logging
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import mlflow
import mlflow.onnx
import onnx
from mlflow.entities import Metric, Param, RunTag, ViewType
from mlflow.tracking import MlflowClient

from fer_search.errors import first_line

logger = logging.getLogger(__name__)

EXPERIMENT = "fer_search"
REGISTERED_MODEL = "fer_search"
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
            experiment = client.get_experiment_by_name(EXPERIMENT)
            self._experiment_id = experiment.experiment_id if experiment else self._create_experiment(client)
            if experiment and experiment.lifecycle_stage == "deleted":
                client.restore_experiment(self._experiment_id)
            self._client = client
        return self._client

    def find_runs(self, search_id: str) -> dict[str, TrackedRun]:
        """Return all runs of one search by their keys."""
        runs: dict[str, TrackedRun] = {}
        token = None
        while True:
            page = self.client.search_runs(
                [self._experiment_id],
                f"tags.`fer_search.search_id` = '{search_id}'",
                ViewType.ACTIVE_ONLY,
                max_results=1000,
                page_token=token,
            )
            runs |= {run.data.tags["fer_search.key"]: TrackedRun(run.info.run_id, run.info.status) for run in page}
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

    def log_report(self, search_id: str, key: str, report: Path) -> None:
        """Store a report's directory with its run; where the server does not take it, there is a warning."""
        try:
            self.client.log_artifacts(self.find_runs(search_id)[key].id, str(report), "report")
        except KeyError:
            logger.warning("MLflow: it has not heard of this search, so it does not have the report")
        except Exception as error:  # whatever a tracking server answers, the report is on disk
            logger.warning("MLflow: %s: it does not have the report", error)

    def register_bundle(self, search_id: str, key: str, bundle: Path, *, model_file: str) -> str | None:
        """Store a bundle with its training's run, register its ONNX model, and return `name/version`.

        Returns None, with a warning, where the server does not take it: the bundle itself is complete without.
        """
        try:
            run_id = self.find_runs(search_id)[key].id
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
        except KeyError:
            logger.warning("MLflow: it has not heard of this training, so the model was not registered")
            return None
        except Exception as error:  # a registry may be away, forbid it or not exist; none of it spoils the bundle
            logger.warning("MLflow: %s: the model was not registered", error)
            return None
        return f"{REGISTERED_MODEL}/{info.registered_model_version}"

    def _create_experiment(self, client: MlflowClient) -> str:
        location = None
        if self.uri.startswith("sqlite:///"):
            location = (Path(self.uri.removeprefix("sqlite:///")).parent / "mlartifacts").as_uri()
        return str(client.create_experiment(EXPERIMENT, artifact_location=location))
