"""What every run, a search or a training, puts on record: data, versions, tags, and its journal in MLflow."""

import logging
import platform
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import Any

from fer_search.data.faces import FER2013, Faces, ImageForm
from fer_search.data.fer2013 import canonical_source, load_faces
from fer_search.data.soft_labels import read_soft_labels
from fer_search.data.splits import Splits, split_faces
from fer_search.errors import InvalidInput, problem
from fer_search.follower import followed
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Event
from fer_search.recipe import Recipe
from fer_search.runs import SETTINGS, locked, write_json
from fer_search.tracking_process import TrackingProcess
from fer_search.tracking_state import (
    RunDescription,
    mark_ended,
    num_unsent,
    read_tracking_state,
    write_description,
)

logger = logging.getLogger(__name__)

Follow = Callable[[Event], None]
"""Receives every event of a journal as it happens."""


@dataclass
class Outcome:
    """What a run's block says of its end."""

    finished: bool = False


@contextmanager
def recorded(
    directory: Path,
    settings: Mapping[str, Any],
    *,
    title: str,
    tags: Mapping[str, str],
    follow: Follow | None,
    parent_params: Mapping[str, Any] | None = None,
    study: Mapping[str, Any] | None = None,
    note: str = "",
) -> Iterator[Outcome]:
    """Hold a run for this process, put its settings on disk, and pass its journal on while the block runs.

    `follow` receives what is new. MLflow calls the run FINISHED if the block said so, KILLED if not, and FAILED after
    an exception; `parent_params`, `study` and `note` are those of RunDescription. Raises InvalidInput while another
    process writes to the run.
    """
    description = RunDescription(
        uri=settings["tracking_uri"],
        search_id=settings["search_id"],
        kind=settings["kind"],
        title=title,
        tags={**run_tags(settings), **tags},
        parent_params=parent_params,
        study=study,
        note=note,
    )
    with locked(directory):
        write_json(directory / SETTINGS, settings)
        write_description(directory, description)
        with _tracked(directory) as outcome, followed(directory / JOURNAL, follow):
            yield outcome


def numbered(follow: Follow | None, index: int) -> Follow | None:
    """Return `follow` with this for a trial's number, since the journal of a training knows of one only."""
    return None if follow is None else lambda event: follow({**event, "trial": index})


def split_for(faces: Faces, recipe: Recipe, *, soft_labels: Path | None = None) -> Splits:
    """Split the faces as the recipe says; the images to train on get the `soft_labels` of a file.

    Raises InvalidInput for a file that is none, or that was made for another split or other faces.
    """
    splits = split_faces(
        faces,
        seed=recipe.split_seed,
        validation_fraction=recipe.validation_fraction,
        fit_fraction=recipe.fit_fraction,
        drop_test_duplicates=recipe.drop_test_duplicates,
    )
    if soft_labels is None:
        return splits
    read = read_soft_labels(soft_labels)
    read.check_split(faces, recipe.model_dump(), source=soft_labels)
    return replace(splits, fit=read.attached(splits.fit, source=soft_labels))


def data_of(settings: Mapping[str, Any], recipe: Recipe) -> tuple[Faces, Splits]:
    """Return the faces that the run with these settings began with, all of them and split as the recipe says.

    Raises InvalidInput where they, or the soft labels, have changed.
    """
    faces = load_faces(settings["data"]["source"])
    check_fingerprint(faces, settings)
    soft_labels = soft_labels_of(settings)
    check_soft_labels(soft_labels, settings)
    return faces, split_for(faces, recipe, soft_labels=soft_labels)


def describe_data(source: str, faces: Faces, splits: Splits, *, soft_labels: Path | None = None) -> dict[str, Any]:
    """Return what a run records of its data: where it and its soft labels came from, what it was, and how it was
    split.
    """
    return {
        "source": canonical_source(source),
        "fingerprint": faces.fingerprint(),
        **asdict(faces.form),
        "num_fit": len(splits.fit),
        "num_validation": len(splits.validation),
        "num_public": len(splits.public),
        "num_public_unique": int(splits.public_unique.sum()),
        "public_label": splits.label,
        "dropped_test_duplicates": splits.dropped_test_duplicates,
        "soft_labels": None
        if soft_labels is None
        else {"source": str(soft_labels.resolve()), "digest": read_soft_labels(soft_labels).digest()},
    }


def form_of(data: Mapping[str, Any]) -> ImageForm:
    """Return the form of the images that a run recorded of its data; FER2013's where an older version recorded none."""
    if "classes" not in data:
        return FER2013
    return ImageForm(tuple(data["classes"]), data["size"], data["channels"])


def check_fingerprint(faces: Faces, settings: Mapping[str, Any]) -> None:
    """Raise InvalidInput if the faces are not those that the run with these settings began with."""
    data = settings["data"]
    if faces.fingerprint() != data["fingerprint"]:
        rule = f"must have the fingerprint {data['fingerprint']} that this run began with"
        raise InvalidInput(problem(data["source"], "data", rule, faces.fingerprint()))


def soft_labels_of(settings: Mapping[str, Any]) -> Path | None:
    """Return the file of the soft labels that a run with these settings began with."""
    recorded = settings["data"].get("soft_labels")  # an older version knew of none
    return None if recorded is None else Path(recorded["source"])


def soft_labels_digest_of(settings: Mapping[str, Any]) -> str | None:
    """Return the digest of the soft labels that a run with these settings began with."""
    recorded = settings["data"].get("soft_labels")
    return None if recorded is None else str(recorded["digest"])


def check_soft_labels(soft_labels: Path | None, settings: Mapping[str, Any]) -> None:
    """Raise InvalidInput if a file of soft labels is not what the run with these settings began with."""
    began, found = soft_labels_digest_of(settings), soft_labels and read_soft_labels(soft_labels).digest()
    if found != began:
        rule = "must be none" if began is None else f"must have the digest {began}"
        raise InvalidInput(problem(soft_labels or "command line", "soft-labels", f"{rule}, as this run began", found))


def run_tags(settings: Mapping[str, Any]) -> dict[str, str]:
    """Return the tags of every run that was started with these settings."""
    data = settings["data"]
    return {
        "data": Path(data["source"]).name,
        "data_fingerprint": data["fingerprint"],
        "public_label": data["public_label"],
        "code_version": settings["versions"]["fer-search"],
    }


def package_versions() -> dict[str, str]:
    """Return the versions that a run depends on."""
    packages = ("fer-search", "torch", "timm", "ray", "optuna", "mlflow")
    return {"python": platform.python_version(), **{package: version(package) for package in packages}}


@contextmanager
def _tracked(directory: Path) -> Iterator[Outcome]:
    """Send the run's journal to MLflow while the block runs, and say what MLflow does not have at its end."""
    process = TrackingProcess(directory)
    outcome, status = Outcome(), "FAILED"
    try:
        yield outcome
        status = "FINISHED" if outcome.finished else "KILLED"
    except KeyboardInterrupt:
        status = "KILLED"
        raise
    finally:
        process.end(status)
        with suppress(OSError):  # where the disk is full it is not this that stops a search
            mark_ended(directory, status)
        unsent, error = num_unsent(directory), read_tracking_state(directory).error
        if unsent or error:
            logger.warning(
                "MLflow lacks %s of %s (%s); fer-search sync will send it",
                f"{unsent} events" if unsent else "the end", directory, error or "it was too slow",
            )  # fmt: skip
