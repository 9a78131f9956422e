"""Our parquet form: what the cache holds, and a file of 75 MB that reads in a fraction of a second."""

from __future__ import annotations

import json
import math
from dataclasses import asdict
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet
from numpy.typing import NDArray

from fer_search.atomic import replacing
from fer_search.data.faces import FER2013, MOST_SIZE, USAGES, Faces, ImageForm
from fer_search.data.problems import reject
from fer_search.errors import InvalidInput, problem
from fer_search.files import MOST_TABLE_BYTES, check_file, check_unpacked

_FINGERPRINT = b"fer_search.fingerprint"
_FORM = b"fer_search.form"


def schema_of(form: ImageForm) -> Any:
    """Return the columns of a file of such images; `emotion` is the index of the class."""
    return pa.schema(
        [
            pa.field("emotion", pa.uint8() if len(form.classes) <= 256 else pa.uint16(), nullable=False),
            pa.field("usage", pa.string(), nullable=False),
            pa.field("name", pa.string(), nullable=False),
            pa.field("pixels", pa.binary(math.prod(form.shape)), nullable=False),
        ]
    )


SCHEMA = schema_of(FER2013)


def write_parquet(faces: Faces, path: Path) -> None:
    """Write the faces, with their fingerprint in the file's metadata; an existing file is replaced whole.

    Images that are not of FER2013's form say there of which they are.
    """
    schema = schema_of(faces.form)
    columns = [
        pa.array(faces.labels.astype(np.uint16)).cast(schema.field("emotion").type),
        pa.array(faces.usage.tolist(), pa.string()),
        pa.array(faces.names.tolist(), pa.string()),
        pa.FixedSizeBinaryArray.from_buffers(
            schema.field("pixels").type, len(faces), [None, pa.py_buffer(np.ascontiguousarray(faces.pixels))]
        ),
    ]
    form = {} if faces.form == FER2013 else {_FORM: json.dumps(asdict(faces.form)).encode()}
    schema = schema.with_metadata({_FINGERPRINT: faces.fingerprint().encode(), **form})
    with replacing(path) as temporary:
        pyarrow.parquet.write_table(
            pa.Table.from_arrays(columns, schema=schema), temporary, use_dictionary=["usage"], compression="none"
        )


def read_parquet(path: Path) -> Faces:
    """Read a file that `write_parquet` wrote, or another one with the columns and values of `SCHEMA`.

    Raises:
        InvalidInput: for a file that is not parquet, lacks a column, or holds values that are no face.
    """
    check_file(path, most_bytes=MOST_TABLE_BYTES)
    try:
        # Not read_table, which imports pyarrow.dataset: a cached load takes less time than that.
        with pyarrow.parquet.ParquetFile(path) as file:
            check_unpacked(path, file)
            table = file.read()
    except (pa.ArrowException, OSError, ValueError) as error:
        if isinstance(error, InvalidInput):
            raise
        raise InvalidInput(problem(path, "file", "must be a parquet file", str(error))) from error
    form = _form_of(path, table.schema.metadata or {})
    columns = _checked_columns(path, table, schema_of(form))
    if not table.num_rows:
        raise InvalidInput(problem(path, "file", "must have at least one row", 0))
    # Not to_numpy, which imports pandas.
    labels = np.from_dlpack(columns["emotion"]).astype(np.int64)
    usage = np.array(columns["usage"].to_pylist())
    reject(
        [
            problem(path, f"row {row + 1}: {key}", rule, values[row].item())
            for key, values, rule, bad in (
                ("emotion", labels, f"must be from 0 to {len(form.classes) - 1}", labels >= len(form.classes)),
                ("usage", usage, f"must be one of {', '.join(USAGES)}", ~np.isin(usage, USAGES)),
            )
            for row in np.flatnonzero(bad)
        ]
    )
    names = np.array(columns["name"].to_pylist())
    return Faces(_as_images(columns["pixels"], form), labels, usage, names, form.classes)


def read_fingerprint(path: Path) -> str:
    """Return the fingerprint that `write_parquet` stored, or an empty string when the file has none."""
    metadata = pyarrow.parquet.read_schema(path).metadata or {}
    return str(metadata.get(_FINGERPRINT, b"").decode())


def _form_of(path: Path, metadata: dict[bytes, bytes]) -> ImageForm:
    """Return the form of the images that a file's metadata names, FER2013's where it names none."""
    if _FORM not in metadata:
        return FER2013
    try:
        found = json.loads(metadata[_FORM])
        form = ImageForm(tuple(found["classes"]), found["size"], found["channels"])
        sound = all(isinstance(name, str) for name in form.classes) and len({*form.classes}) == len(form.classes) > 1
        sound = sound and isinstance(form.size, int) and 0 < form.size <= MOST_SIZE and form.channels in (1, 3)
    except (ValueError, TypeError, KeyError, RecursionError):
        sound = False
    if not sound:
        rule = f"must be classes, a size up to {MOST_SIZE} and 1 or 3 channels"
        raise InvalidInput(problem(path, _FORM.decode(), rule, metadata[_FORM]))
    return form


def _checked_columns(path: Path, table: Any, schema: Any) -> dict[str, Any]:
    problems: list[str] = []
    columns: dict[str, Any] = {}
    for field in schema:
        if table.column_names.count(field.name) != 1:
            nearest = get_close_matches(field.name, table.column_names, n=1)
            hint = f" (is {nearest[0]!r} meant to be it?)" if nearest else ""
            problems.append(problem(path, field.name, f"must be one column{hint}", table.column_names))
            continue
        column = table[field.name]
        if column.null_count:
            problems.append(problem(path, field.name, "must have no nulls", f"{column.null_count} nulls"))
            continue
        try:
            columns[field.name] = column.cast(field.type).combine_chunks()
            columns[field.name].validate(full=True)  # such as text that is not UTF-8
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError):
            problems.append(problem(path, field.name, f"must hold values of type {field.type}", str(column.type)))
    reject(problems)
    return columns


def _as_images(column: Any, form: ImageForm) -> NDArray[np.uint8]:
    data = np.frombuffer(column.buffers()[1], dtype=np.uint8)
    images = data.reshape(-1, *form.shape)[column.offset : column.offset + len(column)]
    return images.copy()  # the buffer is read-only, and other arrays of faces are not
