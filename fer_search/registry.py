"""A bundle in MLflow's model registry: with a signature and an example, and an alias that says which one to serve."""

import io
import logging
import os
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import version
from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow import MlflowClient
from mlflow.models import ModelSignature
from mlflow.types import ColSpec, Schema
from PIL import Image

from fer_search.data.synthetic import synthesize
from fer_search.predict import MANIFEST, read_manifest, sha256_of
from fer_search.runs import SETTINGS, read_json
from fer_search.served_model import COLUMN, EMOTION
from fer_search.tracking import Tracker

logger = logging.getLogger(__name__)

MODEL = "fer_search"
CHAMPION = "champion"
"""The alias of the winner of a search that was exported last."""
DIGEST = "bundle_sha256"
FOLDERS = {"training": "bundle", "soup": "bundle_soup", "ensemble": "bundle_ensemble"}
"""What a bundle of each kind is called, here and in the directory of its search."""
PACKAGE = Path(__file__).parent
REQUIREMENTS = ("numpy", "onnx", "onnxruntime", "pandas", "pillow", "pydantic")
DESCRIPTION = (
    "Facial emotions (or the classes of other images), found by fer_search. Serve it with `mlflow models serve -m "
    f"models:/{MODEL}@{CHAMPION} --env-manager local`; a row of `{COLUMN}` is an image file, in base64."
)


def register_run(bundle: Path, training: Path, *, is_winner: bool, uri: str | None = None) -> str | None:
    """Store a bundle with the run of its training, or of its search, register it as a model, and return `name/version`.

    A bundle that is registered already stays the version that it is. A new version of a winner becomes the champion;
    one that was there before takes that from no other. Returns None, with a warning, where the server does not take it:
    the bundle itself is complete without.
    """
    settings = read_json(training / SETTINGS)
    tracker, tags = Tracker(uri or settings["tracking_uri"]), settings.get("tags", {"search": training.name})
    search_id, key = settings["search_id"], settings["kind"]
    try:
        run_id = tracker.find_runs(search_id)[key].id
        kind = kind_of(bundle)
        tracker.client.log_artifacts(run_id, str(bundle), FOLDERS[kind])
        digest = sha256_of(bundle / MANIFEST)
        known = _registered(tracker.client, run_id, digest)
        found = known or _register(tracker, run_id, bundle)
        _describe(tracker.client, found, {**tags, "kind": kind, DIGEST: digest}, bundle)
        if is_winner and (known is None or CHAMPION not in tracker.client.get_registered_model(MODEL).aliases):
            tracker.client.set_registered_model_alias(MODEL, CHAMPION, found)
    except KeyError:
        logger.warning("MLflow: it has not heard of this training, so the model was not registered")
        return None
    except Exception as error:  # a registry may be away, forbid it or not exist; none of it spoils the bundle
        logger.warning("MLflow: %s: the model was not registered", error)
        return None
    return f"{MODEL}/{found}"


def _registered(client: MlflowClient, run_id: str, digest: str) -> str | None:
    """Return the version of a run's bundle; one without tags is of a process that was killed before it set them."""
    versions = client.search_model_versions(f"name = '{MODEL}' AND run_id = '{run_id}'")
    return next((str(each.version) for each in versions if each.tags.get(DIGEST, digest) == digest), None)


def _register(tracker: Tracker, run_id: str, bundle: Path) -> str:
    classes = read_manifest(bundle)["classes"]
    outputs = Schema([ColSpec("string", EMOTION), *(ColSpec("double", name) for name in classes)])
    with _logging_to(tracker, run_id):
        info = mlflow.pyfunc.log_model(
            name="model",
            loader_module="fer_search.served_model",
            data_path=str(bundle),
            code_paths=[str(PACKAGE)],
            signature=ModelSignature(inputs=Schema([ColSpec("binary", COLUMN)]), outputs=outputs),
            input_example=pd.DataFrame({COLUMN: [example_face()]}),
            registered_model_name=MODEL,
            pip_requirements=[f"{package}=={version(package)}" for package in REQUIREMENTS],
        )
    return str(info.registered_model_version)


def kind_of(bundle: Path) -> str:
    """Return what a bundle was made of: a training, or several as a soup or an ensemble."""
    return str(read_manifest(bundle).get("kind", "training"))


def example_face() -> bytes:
    """Return a procedural face as the content of a PNG file."""
    content = io.BytesIO()
    Image.fromarray(synthesize(50, seed=0).pixels[0]).save(content, "PNG")
    return content.getvalue()


@contextmanager
def _logging_to(tracker: Tracker, run_id: str) -> Iterator[None]:
    """Let MLflow's own functions log to an ended run, which is as it was afterwards, whatever becomes of the block."""
    ended = tracker.client.get_run(run_id).info
    before = os.environ.get("MLFLOW_TRACKING_URI")
    mlflow.set_tracking_uri(tracker.uri)  # sets that variable too, which whatever is started next would obey
    try:
        with mlflow.start_run(run_id=run_id):
            yield
    finally:
        mlflow.set_tracking_uri(before)
        tracker.client.set_terminated(run_id, ended.status, ended.end_time)


def _describe(client: MlflowClient, found: str, tags: Mapping[str, str], bundle: Path) -> None:
    manifest: dict[str, Any] = read_manifest(bundle)
    views = manifest["prediction"]["views"]
    public = manifest["metrics"]["public"][views]
    about = (
        f"{manifest['data']['public_label']}: accuracy {public['accuracy']:.2%} (95 % interval "
        f"{public['accuracy_low']:.1%} to {public['accuracy_high']:.1%}), macro-F1 {public['macro_f1']:.3f}, "
        f"{public['num_images']:,} images, {views} views. Data: {Path(manifest['data']['source']).name}, fingerprint "
        f"{manifest['data']['fingerprint'][:12]}. Recipe {manifest['recipe_digest']}."
    )
    client.update_registered_model(MODEL, DESCRIPTION)
    client.update_model_version(MODEL, found, about)
    for name, value in {**tags, "public_accuracy": f"{public['accuracy']:.4f}"}.items():
        client.set_model_version_tag(MODEL, found, name, value)
