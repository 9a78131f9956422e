"""Files that users bring: regular ones, of a size that their reader is made for. The limits are in docs/files.md."""

import stat
import tomllib
from pathlib import Path
from typing import Any

from fer_search.errors import InvalidInput, problem

MEGABYTE = 10**6
MOST_TEXT_BYTES = 16 * MEGABYTE
"""Of a TOML or JSON file."""
MOST_IMAGE_BYTES = 64 * MEGABYTE
MOST_IMAGE_PIXELS = 64_000_000
MOST_TABLE_BYTES = 8_000 * MEGABYTE
"""Of a csv or parquet file, and of what is in it when it is not compressed."""
MOST_MODEL_BYTES = 2_000 * MEGABYTE
"""Of weights or an ONNX file, which cannot be larger."""


def file_problem(path: Path, *, most_bytes: int) -> str | None:
    """Return what is wrong with a file before it is opened; a pipe or a device would never end."""
    try:
        status = path.stat()
    except (OSError, ValueError) as error:
        return problem(path, "file", "must exist and be readable", getattr(error, "strerror", None) or str(error))
    if not stat.S_ISREG(status.st_mode):
        return problem(path, "file", "must be a regular file", stat.filemode(status.st_mode))
    if status.st_size > most_bytes:
        return problem(path, "file", f"must be at most {most_bytes / MEGABYTE:,.0f} MB", f"{status.st_size:,} bytes")
    return None


def check_file(path: Path, *, most_bytes: int) -> None:
    """Raise InvalidInput for a file that is none or is too large."""
    if found := file_problem(path, most_bytes=most_bytes):
        raise InvalidInput(found)


def read_text(path: Path) -> str:
    """Return a text file's content; raises InvalidInput for one that is none, is too large, or is not UTF-8."""
    check_file(path, most_bytes=MOST_TEXT_BYTES)
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        raise InvalidInput(problem(path, "file", "must be readable", error.strerror)) from error
    except UnicodeDecodeError as error:
        raise InvalidInput(problem(path, "file", "must be UTF-8 text", error.reason)) from error


def read_toml(path: Path) -> dict[str, Any]:
    """Read a TOML file, or raise InvalidInput that names the file and the line."""
    text = read_text(path)
    try:
        return tomllib.loads(text)
    except (ValueError, RecursionError) as error:  # the first also for numbers of thousands of digits
        raise InvalidInput(problem(path, "file", "must be TOML", str(error))) from error


def check_unpacked(path: Path, file: Any) -> None:
    """Raise InvalidInput for a parquet file that says of itself that it is too large when it is unpacked."""
    metadata = file.metadata
    size = sum(metadata.row_group(number).total_byte_size for number in range(metadata.num_row_groups))
    if size > MOST_TABLE_BYTES:
        raise InvalidInput(problem(path, "file", f"must hold at most {MOST_TABLE_BYTES:,} bytes", size))
