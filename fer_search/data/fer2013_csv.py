"""FER2013's csv forms: `fer2013.csv`, `icml_face_data.csv` and the competition's `train.csv`.

The pixel column is 264 MB of decimal numbers. Its digits are decoded with whole-array arithmetic, a block of rows at a
time; only a block that is not in the exact form is parsed row by row, which also finds what is wrong with it.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from difflib import get_close_matches
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.csv
from numpy.typing import NDArray

from fer_search.atomic import replacing
from fer_search.data.faces import EMOTIONS, IMAGE_SIZE, USAGES, Faces
from fer_search.data.problems import reject
from fer_search.errors import InvalidInput, problem
from fer_search.files import MOST_TABLE_BYTES, check_file

COLUMNS = ("emotion", "pixels", "Usage")
NUM_PIXELS = IMAGE_SIZE * IMAGE_SIZE
# About a hundred rows: the temporary arrays of the decoder stay in the processor's cache.
BLOCK_BYTES = 1 << 20
MAX_HEADER_BYTES = 1 << 16

_LABEL_OF_TEXT = {str(label).encode(): label for label in range(len(EMOTIONS))}
_CODE_OF_USAGE = {usage.encode(): code for code, usage in enumerate(USAGES)}
_UNKNOWN = -1


def read_csv(path: Path) -> Faces:
    """Read a csv with the columns emotion, pixels and Usage in any order; without Usage every row is Training.

    A face is named after its usage and its data row, counted from 1 below the header: `Training_17`.

    Raises:
        InvalidInput: for a file that is not such a csv, with every bad row named by its number.
    """
    check_file(path, most_bytes=MOST_TABLE_BYTES)
    columns = _read_header(path)
    malformed: list[_Mistake] = []

    def skip_malformed(row: Any) -> str:
        rule = f"must have {row.expected_columns} fields"
        malformed.append(_Mistake(row.number - 1, "line", rule, row.actual_columns))
        return "skip"

    blocks: list[_Block] = []
    mistakes: list[_Mistake] = []
    num_rows = 0
    try:
        reader = pyarrow.csv.open_csv(
            path,
            # Without threads, malformed rows come with their number. The fields are ASCII; latin-1 takes any other byte
            # too, so that whatever is wrong is reported with its row.
            read_options=pyarrow.csv.ReadOptions(
                column_names=columns, skip_rows=1, block_size=BLOCK_BYTES, use_threads=False, encoding="latin-1"
            ),
            parse_options=pyarrow.csv.ParseOptions(invalid_row_handler=skip_malformed),
            convert_options=pyarrow.csv.ConvertOptions(column_types=dict.fromkeys(columns, pa.binary())),
        )
        for batch in reader:
            blocks.append(_decode_block(batch, num_rows, mistakes))
            num_rows += batch.num_rows
    except pa.ArrowInvalid as error:
        raise InvalidInput(problem(path, "file", "must be a csv with at least one data row", str(error))) from error

    if mistakes or malformed:
        reject([_describe(path, mistake) for mistake in _in_file_order(mistakes, malformed, num_rows)])
    if not num_rows:
        raise InvalidInput(problem(path, "file", "must have at least one data row", 0))
    usage = np.array(USAGES)[np.concatenate([block.usage_codes for block in blocks])]
    return Faces(
        pixels=np.concatenate([block.pixels for block in blocks]),
        labels=np.concatenate([block.labels for block in blocks]),
        usage=usage,
        names=np.array([f"{used}_{row}" for row, used in enumerate(usage.tolist(), start=1)]),
    )


def write_csv(faces: Faces, path: Path) -> None:
    """Write the faces as `emotion,pixels,Usage`, FER2013's own form; names are not kept."""
    text_of_pixel = [str(value) for value in range(256)]
    rows = zip(faces.labels.tolist(), faces.pixels.reshape(len(faces), -1), faces.usage.tolist(), strict=True)
    with replacing(path) as temporary, temporary.open("w", encoding="ascii", newline="\n") as file:
        file.write(",".join(COLUMNS) + "\n")
        for label, pixels, usage in rows:
            file.write(f"{label},{' '.join(map(text_of_pixel.__getitem__, pixels.tolist()))},{usage}\n")


class _Mistake(NamedTuple):
    row: int
    key: str
    rule: str
    value: object


class _Block(NamedTuple):
    pixels: NDArray[np.uint8]  # (n, 48, 48)
    labels: NDArray[np.int64]  # (n,)
    usage_codes: NDArray[np.int64]  # (n,), index into USAGES


def _read_header(path: Path) -> list[str]:
    with path.open("rb") as file:
        line = file.readline(MAX_HEADER_BYTES)
    if not line.strip():
        raise InvalidInput(problem(path, "header", f"must name the columns {', '.join(COLUMNS)}", line))
    try:
        text = line.decode("utf-8-sig")
        columns = [name.strip() for name in next(csv.reader([text]))]
    except (UnicodeDecodeError, csv.Error) as error:
        raise InvalidInput(problem(path, "header", "must be csv text in UTF-8", line[:24])) from error

    problems = [
        problem(path, name, "must be the name of one column", f"{columns.count(name)} of that name")
        for name in COLUMNS
        if columns.count(name) > 1
    ]
    missing = [name for name in COLUMNS if name not in columns]
    # Only these two exact columns are train.csv: a misspelled Usage must not turn the test images into training images.
    if missing != ["Usage"] or set(columns) != {"emotion", "pixels"}:
        problems += [problem(path, name, f"must be a column{_hint(name, columns)}", columns) for name in missing]
    reject(problems)
    return columns


def _hint(name: str, columns: Sequence[str]) -> str:
    spelled = {column.lower(): column for column in columns}
    nearest = get_close_matches(name.lower(), spelled, n=1)
    return f" (is {spelled[nearest[0]]!r} meant to be it?)" if nearest else ""


def _decode_block(batch: Any, first_row: int, mistakes: list[_Mistake]) -> _Block:
    """Decode one block of rows; rows with a mistake are appended to `mistakes` and hold arbitrary values."""
    labels = _codes(batch["emotion"], _LABEL_OF_TEXT)
    usage_codes = np.zeros_like(labels)  # Training
    wrong = [("emotion", f"must be a whole number from 0 to {len(EMOTIONS) - 1}", labels)]
    if "Usage" in batch.schema.names:
        usage_codes = _codes(batch["Usage"], _CODE_OF_USAGE)
        wrong.append(("Usage", f"must be one of {', '.join(USAGES)}", usage_codes))
    for key, rule, codes in wrong:
        mistakes.extend(
            _Mistake(first_row + row, key, rule, _shown(batch[key][row].as_py()))
            for row in np.flatnonzero(codes == _UNKNOWN).tolist()
        )

    texts: list[bytes] = batch["pixels"].to_pylist()
    pixels = _decode_pixels(texts)
    if pixels is None:
        parsed = [_parse_pixels(text, first_row + row) for row, text in enumerate(texts)]
        mistakes.extend(row for row in parsed if isinstance(row, _Mistake))
        blank = bytes(NUM_PIXELS)
        pixels = np.frombuffer(b"".join(blank if isinstance(row, _Mistake) else row for row in parsed), np.uint8)
    return _Block(pixels.reshape(-1, IMAGE_SIZE, IMAGE_SIZE), labels, usage_codes)


def _codes(column: Any, code_of: Mapping[bytes, int]) -> NDArray[np.int64]:
    encoded = column.dictionary_encode()
    distinct = [code_of.get(text.strip(), _UNKNOWN) for text in encoded.dictionary.to_pylist()]
    codes: NDArray[np.int64] = np.array(distinct, dtype=np.int64)[np.from_dlpack(encoded.indices)]
    return codes


def _decode_pixels(texts: Sequence[bytes]) -> NDArray[np.uint8] | None:
    """Decode rows of 2,304 numbers from 0 to 255 apart by one space each, or return None if any row is otherwise."""
    raw = np.frombuffer(b" ".join(texts) + b" ", dtype=np.uint8)
    digit = raw - np.uint8(ord("0"))
    is_digit = digit < 10
    digit *= is_digit
    last_digits = np.flatnonzero(is_digit[:-1] > is_digit[1:])
    ends_of_rows = np.cumsum([len(text) + 1 for text in texts]) - 2
    three_digits = is_digit[:-2] & is_digit[1:-1] & is_digit[2:]
    if (
        len(last_digits) != len(texts) * NUM_PIXELS
        or not np.array_equal(last_digits[NUM_PIXELS - 1 :: NUM_PIXELS], ends_of_rows)
        or np.count_nonzero(is_digit) + np.count_nonzero(raw == ord(" ")) != len(raw)
        or np.any(three_digits[:-1] & three_digits[1:])
    ):
        return None
    # The number that ends at each byte: a space counts as the digit 0, and hundreds only where the tens are a digit.
    numbers = digit.astype(np.uint16)
    numbers[1:] += digit[:-1] * np.uint16(10)
    numbers[2:] += (digit[:-2] * is_digit[1:-1]) * np.uint16(100)
    numbers = numbers[last_digits]
    return None if numbers.max(initial=0) > 255 else numbers.astype(np.uint8)


def _parse_pixels(text: bytes, row: int) -> bytes | _Mistake:
    numbers = text.split()
    if len(numbers) != NUM_PIXELS:
        return _Mistake(row, "pixels", f"must be {NUM_PIXELS} numbers", len(numbers))
    for position, number in enumerate(numbers, start=1):
        # int() of unlimited digits is slow, and the length is already wrong.
        if not (number.isdigit() and len(number) <= 20 and int(number) <= 255):
            rule = f"number {position} must be a whole number from 0 to 255"
            return _Mistake(row, "pixels", rule, _shown(number))
    return bytes(map(int, numbers))


def _in_file_order(mistakes: Sequence[_Mistake], malformed: Sequence[_Mistake], num_rows: int) -> list[_Mistake]:
    """Number mistakes by data row: malformed rows know theirs, the others were counted without the malformed ones."""
    malformed_rows = [mistake.row for mistake in malformed]
    well_formed_rows = np.setdiff1d(np.arange(1, num_rows + len(malformed) + 1), malformed_rows)
    numbered = [mistake._replace(row=int(well_formed_rows[mistake.row])) for mistake in mistakes]
    return sorted([*numbered, *malformed], key=lambda mistake: mistake.row)


def _describe(path: Path, mistake: _Mistake) -> str:
    return problem(path, f"data row {mistake.row} below the header: {mistake.key}", mistake.rule, mistake.value)


def _shown(text: bytes) -> str:
    return text.decode().encode("latin-1").decode(errors="backslashreplace")
