"""The protocol: what trials learn from, what they are judged on, what makes the final choice, and what is read last.

Search-validation is a part of Training, so PublicTest is looked at for the final choice only, and PrivateTest once,
through a ledger that remembers every look.
"""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_search.data.audit import duplicate_clusters, training_images_in_tests
from fer_search.data.faces import Faces
from fer_search.data.problems import reject
from fer_search.errors import InvalidInput, problem

# Of Training, where the official split is lost: about the size of PublicTest. The seed is fixed, so that every recipe's
# final choice is made on the same images.
HELD_OUT_FRACTION = 0.1
HELD_OUT_SEED = 0
JUDGED_BY = ("split_seed", "validation_fraction", "drop_test_duplicates")
"""The fields of a recipe that decide which images a training is judged on and must not know; how many of the others it
learns from (`fit_fraction`) is its own affair."""


@dataclass(frozen=True)
class Splits:
    """Disjoint sets of faces; no byte-identical image stands in two of them, unless `label` says so."""

    fit: Faces  # trials and retraining learn from these
    validation: Faces  # a part of Training; all that trials are judged on
    public: Faces  # makes the final choice
    public_unique: NDArray[np.bool_]  # (images of public,): no copy of it stands in Training, nor earlier in public
    label: str  # how numbers from `public` must be called
    dropped_test_duplicates: int  # Training images left out since a test split has them too


def split_faces(
    faces: Faces,
    *,
    seed: int,
    validation_fraction: float,
    fit_fraction: float = 1.0,
    drop_test_duplicates: bool = True,
) -> Splits:
    """Split the faces: the same images for the same seed, whatever order the faces are in.

    The parts of Training are stratified by class, and byte-identical images stay on one side. Without an official
    PublicTest a tenth of Training stands in for it, independent of `seed`. `fit_fraction` keeps a part of `fit` and
    leaves the other sets as they are. Images with conflicting labels stay: that noise is part of the data.

    Raises:
        InvalidInput: for a fraction out of range, or a class with too few images to be in every part of Training.
    """
    reject(
        [
            problem("split", name, rule, value)
            for name, rule, value, holds in (
                (
                    "validation_fraction",
                    "must be above 0 and below 1",
                    validation_fraction,
                    0 < validation_fraction < 1,
                ),
                ("fit_fraction", "must be above 0 and at most 1", fit_fraction, 0 < fit_fraction <= 1),
            )
            if not holds
        ]
    )
    clusters = duplicate_clusters(faces)
    in_tests = training_images_in_tests(faces, clusters)
    dropped = in_tests if drop_test_duplicates else np.zeros_like(in_tests)
    training = np.flatnonzero((faces.usage == "Training") & ~dropped)

    if faces.has_official_split:
        public = np.flatnonzero(faces.usage == "PublicTest")
        label = "PublicTest"
    else:
        public, training = _divide(faces, clusters, training, fraction=HELD_OUT_FRACTION, seed=HELD_OUT_SEED)
        label = "held out of Training (no official split)"
    if np.any(in_tests & ~dropped):
        label += ", whose duplicates in Training were kept"
    validation, fit = _divide(faces, clusters, training, fraction=validation_fraction, seed=seed)
    if fit_fraction < 1:
        fit, _ = _divide(faces, clusters, fit, fraction=fit_fraction, seed=seed)
    return Splits(
        fit=faces.take(fit),
        validation=faces.take(validation),
        public=faces.take(public),
        public_unique=_is_unique(faces, clusters, public),
        label=label,
        dropped_test_duplicates=int(np.count_nonzero(dropped)),
    )


def fold_of(faces: Faces, *, folds: int, seed: int) -> NDArray[np.int64]:
    """Return the fold (N,), from 0, of each face: stratified by class, byte-identical images in one fold.

    The same images for the same seed, whatever order the faces are in. Raises InvalidInput for a class with fewer
    different images than folds.
    """
    clusters = duplicate_clusters(faces)
    indices = np.arange(len(faces))
    ids, cluster_of, class_of_cluster = _classes_of_clusters(faces, clusters, indices)
    rng = np.random.default_rng([seed, *b"folds"])
    fold = np.empty(len(ids), dtype=np.int64)
    problems = []
    first = 0  # goes round, so that the images left over by all classes are not in the first folds alone
    for label, name in enumerate(faces.classes):
        candidates = rng.permutation(np.flatnonzero(class_of_cluster == label))
        if len(candidates) < folds:
            rule = f"must have an image for each of {folds} folds"
            problems.append(problem("data", name, rule, f"{len(candidates)} different ones"))
        fold[candidates] = (first + np.arange(len(candidates))) % folds
        first += len(candidates)
    reject(problems)
    return fold[cluster_of]


def read_private_test(faces: Faces, *, ledger: Path, purpose: str, again: str | None = None) -> Faces:
    """Return PrivateTest, or the merged Test where the official split is lost, after noting this reading in the ledger.

    The ledger is a file of JSON lines, see `read_ledger`. The note is on disk before the images are returned. Images
    that were read before are given only to who says why they must be read `again`, which the ledger keeps.

    Raises:
        InvalidInput: for faces with neither, images that were read before without a reason, or a reason where they
            were not, or a ledger that is damaged or cannot be written.
    """
    present = [usage for usage in ("PrivateTest", "Test") if np.any(faces.usage == usage)]
    if not present:
        raise InvalidInput(
            problem("data", "usage", "must have PrivateTest or Test images", np.unique(faces.usage).tolist())
        )
    private = faces.where(present[0])
    # Earlier readings are counted by the images that were read: other training data beside them changes nothing.
    fingerprint = private.fingerprint()
    earlier = [entry for entry in read_ledger(ledger) if entry["test_fingerprint"] == fingerprint]
    _check_first_look(earlier, again, ledger=ledger)
    reading = {
        "format": 1,
        "time": datetime.now(UTC).isoformat(timespec="seconds"),
        "purpose": purpose,
        "usage": present[0],
        "num_images": len(private),
        "data_fingerprint": faces.fingerprint(),
        "test_fingerprint": fingerprint,
        "earlier_readings": len(earlier),
        "again": again,
    }
    try:
        ledger.parent.mkdir(parents=True, exist_ok=True)
        with ledger.open("a", encoding="utf-8") as file:
            file.write(json.dumps(reading, sort_keys=True) + "\n")
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        raise InvalidInput(problem(ledger, "ledger", "must be a file that can be written", str(error))) from error
    return private


def _check_first_look(earlier: list[dict[str, Any]], again: str | None, *, ledger: Path) -> None:
    """Raise InvalidInput where images were read before and nobody says why once more, or the other way round."""
    if again is not None and not again.strip():
        raise InvalidInput(problem("command line", "again", "must say why the images are read once more", again))
    if again is not None and not earlier:
        raise InvalidInput(
            problem("command line", "again", f"must not be given: {ledger} has no reading of them", again)
        )
    if earlier and again is None:
        last = earlier[-1]
        rule = (
            f"must not be read once more, after {last.get('time')} ({last.get('purpose')}), without a reason that the "
            'ledger keeps (--again "REASON")'
        )
        raise InvalidInput(problem(ledger, "private", rule, f"{len(earlier)} earlier"))


def read_ledger(ledger: Path) -> list[dict[str, Any]]:
    """Return the readings of the private test images, oldest first; none when there is no ledger yet.

    Raises:
        InvalidInput: for lines that are no readings, as edited or half-written ones are.
    """
    if not ledger.is_file():
        return []
    entries: list[dict[str, Any]] = []
    problems: list[str] = []
    for number, line in enumerate(ledger.read_bytes().splitlines(keepends=True), start=1):
        try:
            entry = json.loads(line)
        except ValueError:
            entry = None
        if isinstance(entry, dict) and "test_fingerprint" in entry and line.endswith(b"\n"):
            entries.append(entry)
        else:
            problems.append(problem(ledger, f"line {number}", "must be one reading as JSON", line))
    reject(problems)
    return entries


def _is_unique(faces: Faces, clusters: NDArray[np.int64], chosen: NDArray[np.int64]) -> NDArray[np.bool_]:
    """Return a mask of the `chosen` faces of which Training, before any was dropped, has no copy, and one of copies.

    Of copies with conflicting labels it is the one with the lowest label, whatever order the faces are in.
    """
    others = np.setdiff1d(np.flatnonzero(faces.usage == "Training"), chosen)
    order = np.lexsort((faces.labels[chosen], clusters[chosen]))
    _, first = np.unique(clusters[chosen][order], return_index=True)
    unique = np.zeros(len(chosen), dtype=bool)
    unique[order[first]] = True
    alone: NDArray[np.bool_] = unique & ~np.isin(clusters[chosen], clusters[others])
    return alone


def _divide(
    faces: Faces, clusters: NDArray[np.int64], indices: NDArray[np.int64], *, fraction: float, seed: int
) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Divide `indices` into a fraction of every class and the rest, whole clusters at a time.

    Unlike scikit-learn's stratified splitters this is quick for 28,000 clusters and gives a rare class to both sides.
    """
    ids, cluster_of, class_of_cluster = _classes_of_clusters(faces, clusters, indices)
    rng = np.random.default_rng(seed)
    chosen = np.zeros(len(ids), dtype=bool)
    problems = []
    for label, name in enumerate(faces.classes):
        candidates = rng.permutation(np.flatnonzero(class_of_cluster == label))
        if len(candidates) < 2:
            problems.append(problem("data", name, "must have two different images to divide", len(candidates)))
            continue
        num_chosen = min(max(round(fraction * len(candidates)), 1), len(candidates) - 1)
        chosen[candidates[:num_chosen]] = True
    reject(problems)
    return indices[chosen[cluster_of]], indices[~chosen[cluster_of]]


def _classes_of_clusters(
    faces: Faces, clusters: NDArray[np.int64], indices: NDArray[np.int64]
) -> tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.int64]]:
    """Return the ids (C,) of the clusters at `indices`, the place in them of each index, and the class of each."""
    ids, cluster_of = np.unique(clusters[indices], return_inverse=True)
    votes = np.zeros((len(ids), len(faces.classes)), dtype=np.int64)
    np.add.at(votes, (cluster_of, faces.labels[indices]), 1)
    return ids, cluster_of, votes.argmax(axis=1)
