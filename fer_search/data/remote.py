"""Data that lies behind a URI, of S3, of Google Cloud Storage or of a file system: a copy of it here, made once."""

import hashlib
import logging
from pathlib import Path
from typing import Any

import pyarrow as pa
from pyarrow import fs

from fer_search.atomic import replacing
from fer_search.data.cache import default_cache_dir
from fer_search.data.uri import check_no_secret
from fer_search.errors import InvalidInput, problem

logger = logging.getLogger(__name__)


def local_copy(uri: str, *, cache_dir: Path | None = None) -> Path:
    """Return a copy of the file or directory behind `uri`, fetched anew when the one there has changed.

    Credentials come from where the store's own tools look for them: environment, profile, or the machine's role.
    Raises InvalidInput where there is nothing that can be read, or where the URI holds a secret.
    """
    check_no_secret(uri)
    try:
        filesystem, path = fs.FileSystem.from_uri(uri)
        infos = _files(filesystem, path)
    except (OSError, pa.ArrowException, ValueError) as error:
        raise InvalidInput(problem(uri, "source", "must be readable", str(error))) from error
    if not infos:
        rule = "must be a csv or parquet file, or a directory of images"
        raise InvalidInput(problem(uri, "source", rule, "nothing there"))
    identity = "\n".join([uri, *(f"{info.path} {info.size} {info.mtime_ns}" for info in infos)])
    digest = hashlib.sha256(identity.encode()).hexdigest()[:24]
    copy = (cache_dir or default_cache_dir()) / f"copy-{digest}" / Path(path).name
    if not copy.exists():
        logger.info("copying %s (%.1f MB)", uri, sum(info.size for info in infos) / 1e6)
        _fetch(uri, filesystem, path, copy)
    return copy


def _files(filesystem: Any, path: str) -> list[Any]:
    """Return the file at `path`, or the files below it."""
    info = filesystem.get_file_info(path)
    if info.type == fs.FileType.File:
        return [info]
    if info.type == fs.FileType.NotFound:
        return []
    below = filesystem.get_file_info(fs.FileSelector(path, recursive=True))
    return sorted((each for each in below if each.type == fs.FileType.File), key=lambda each: str(each.path))


def _fetch(uri: str, filesystem: Any, path: str, copy: Path) -> None:
    try:
        with replacing(copy) as temporary:
            fs.copy_files(
                path, str(temporary), source_filesystem=filesystem, destination_filesystem=fs.LocalFileSystem()
            )
    except (OSError, pa.ArrowException) as error:
        raise InvalidInput(problem(uri, "source", "must be readable, and fit into the cache", str(error))) from error
