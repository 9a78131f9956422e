"""Soft labels: class probabilities of images, in a file, for a training to learn from beside the images' own labels.

An image is found by its pixels, so neither order nor copies nor names matter. Whoever made the probabilities learned
from the images of one split; a training with another split could be judged on images that its soft labels know, so
the file says of which split it is, and no other takes it.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from fer_search.atomic import replacing
from fer_search.data.faces import Faces
from fer_search.data.problems import reject
from fer_search.data.splits import JUDGED_BY
from fer_search.errors import InvalidInput, problem
from fer_search.files import MOST_TABLE_BYTES, check_file, check_unpacked

SUM_TOLERANCE = 1e-3
_FORMAT = 1
_ABOUT = b"fer_search.soft_labels"
_BYTES = 16  # of an image's hash


@dataclass(frozen=True, eq=False)
class SoftLabels:
    """The class probabilities of M different images."""

    images: NDArray[np.bytes_]  # (M,), hashes of the images' pixels, ascending
    probabilities: NDArray[np.float32]  # (M, classes), rows sum to 1
    classes: tuple[str, ...]
    fingerprint: str  # of the faces, all of them, whose fit images these are
    split: dict[str, Any]  # the JUDGED_BY of the recipe that divided them
    made: dict[str, Any]  # by which command and from what, for people to read

    @classmethod
    def of(
        cls,
        fit: Faces,
        probabilities: NDArray[np.floating[Any]],
        *,
        fingerprint: str,
        split: Mapping[str, Any],
        made: Mapping[str, Any],
    ) -> SoftLabels:
        """Return the soft labels of the `fit` images, `probabilities` (N, classes); copies have the same ones."""
        images, first = np.unique(_hashes(fit), return_index=True)
        chosen = {key: split[key] for key in JUDGED_BY}
        return cls(images, probabilities[first].astype(np.float32), fit.classes, fingerprint, chosen, dict(made))

    def digest(self) -> str:
        """Return 16 hexadecimal digits that identify images, probabilities and classes, whoever made them."""
        content = repr(self.classes).encode() + self.images.tobytes() + self.probabilities.tobytes()
        return hashlib.sha256(content).hexdigest()[:16]

    def check_split(self, faces: Faces, split: Mapping[str, Any], *, source: object) -> None:
        """Raise InvalidInput unless they were made for these faces, divided by these JUDGED_BY of a recipe."""
        asked = {"classes": faces.classes, "fingerprint": faces.fingerprint(), **{k: split[k] for k in JUDGED_BY}}
        there = {"classes": self.classes, "fingerprint": self.fingerprint, **self.split}
        rule = "must be {!r}, as in the training, or they may know images that it is judged on"
        reject([problem(source, key, rule.format(asked[key]), there[key]) for key in asked if asked[key] != there[key]])

    def attached(self, fit: Faces, *, source: object) -> Faces:
        """Return the faces with their soft labels; raises InvalidInput where one has none."""
        hashes = _hashes(fit)
        places = np.minimum(np.searchsorted(self.images, hashes), len(self.images) - 1)
        missing = int(np.count_nonzero(self.images[places] != hashes))
        if missing:
            rule = f"must hold each of the {len(fit)} images to train on"
            raise InvalidInput(problem(source, "images", rule, f"all but {missing}"))
        return replace(fit, soft_labels=self.probabilities[places])


def write_soft_labels(labels: SoftLabels, path: Path) -> None:
    """Write them as parquet; an existing file is replaced whole."""
    about = {
        "format": _FORMAT,
        "classes": labels.classes,
        "fingerprint": labels.fingerprint,
        "split": labels.split,
        "made": labels.made,
        "digest": labels.digest(),
    }
    hashes = pa.FixedSizeBinaryArray.from_buffers(
        pa.binary(_BYTES), len(labels.images), [None, pa.py_buffer(labels.images.tobytes())]
    )
    rows = pa.FixedSizeListArray.from_arrays(pa.array(labels.probabilities.ravel()), len(labels.classes))
    table = pa.table({"image": hashes, "probabilities": rows})
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(table.replace_schema_metadata({_ABOUT: json.dumps(about)}), temporary)


def read_soft_labels(path: Path) -> SoftLabels:
    """Read a file that `write_soft_labels` wrote; raises InvalidInput for any other, and for a damaged one."""
    check_file(path, most_bytes=MOST_TABLE_BYTES)
    try:
        with pyarrow.parquet.ParquetFile(path) as file:
            check_unpacked(path, file)
            table = file.read()
        about = json.loads((table.schema.metadata or {}).get(_ABOUT, b"{}"))
        labels = _from(table, about)
    except InvalidInput:
        raise
    except (pa.ArrowException, OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        rule = "must be soft labels that label-noise or distill wrote"
        raise InvalidInput(problem(path, "file", rule, str(error))) from error
    sums, least = labels.probabilities.sum(1), labels.probabilities.min(initial=0.0)
    if not len(sums) or not np.all(np.abs(sums - 1) <= SUM_TOLERANCE) or not least >= 0:
        raise InvalidInput(problem(path, "probabilities", "must be shares that sum to 1 for every image", "others"))
    if labels.digest() != about["digest"]:
        raise InvalidInput(problem(path, "digest", f"must be {about['digest']}, as it was written", labels.digest()))
    return labels


def _hashes(faces: Faces) -> NDArray[np.bytes_]:
    """Return a hash (N,) of each image's pixels."""
    digests = [hashlib.blake2b(image.tobytes(), digest_size=_BYTES).digest() for image in faces.pixels]
    return np.frombuffer(b"".join(digests), dtype=f"S{_BYTES}")


def _from(table: Any, about: Mapping[str, Any]) -> SoftLabels:
    if about.get("format") != _FORMAT:
        raise ValueError(f"format {about.get('format')}")
    classes = tuple(map(str, about["classes"]))
    column = table.column("image").combine_chunks()
    if column.type != pa.binary(_BYTES) or column.null_count:
        raise ValueError(f"images of type {column.type}")
    images = np.frombuffer(b"".join(column.to_pylist()), dtype=f"S{_BYTES}")
    rows = table.column("probabilities").combine_chunks()
    # Not to_numpy, which imports pandas.
    values = np.from_dlpack(rows.flatten()).astype(np.float32).reshape(len(images), len(classes))
    split = {key: about["split"][key] for key in JUDGED_BY}
    return SoftLabels(images, values, classes, str(about["fingerprint"]), split, dict(about["made"]))
