"""Decoded faces kept between runs. A cache only ever saves time: whatever is wrong with it costs a warning."""

import hashlib
import logging
import os
from collections.abc import Callable
from pathlib import Path

import pyarrow as pa

from fer_search.data.faces import Faces
from fer_search.data.fer2013_parquet import read_fingerprint, read_parquet, write_parquet
from fer_search.errors import InvalidInput

logger = logging.getLogger(__name__)

# Part of every identity: raise it when the same source decodes to other faces than before.
_FORMAT = 1


def cached(decode: Callable[[], Faces], *, identity: str, cache_dir: Path | None) -> Faces:
    """Return the faces cached under `identity`, else those that `decode` returns, which are then cached.

    Without `cache_dir` it is `$FER_SEARCH_CACHE`, else `$XDG_CACHE_HOME/fer_search`, else `~/.cache/fer_search`.
    """
    digest = hashlib.sha256(f"{_FORMAT}\n{identity}".encode(errors="surrogateescape")).hexdigest()
    path = (cache_dir or default_cache_dir()) / f"faces-{digest[:24]}.parquet"
    if path.exists():
        try:
            return _read_verified(path)
        except (OSError, pa.ArrowException, InvalidInput) as error:
            logger.warning("rebuilding the unreadable cache file %s: %s", path, error)
    faces = decode()
    try:
        write_parquet(faces, path)
    except (OSError, UnicodeEncodeError) as error:  # the second for file names that are not UTF-8
        logger.warning("the decoded faces are not cached: %s", error)
    return faces


def _read_verified(path: Path) -> Faces:
    faces = read_parquet(path)
    if faces.fingerprint() != read_fingerprint(path):
        raise InvalidInput(f"{path}: the contents do not match the stored fingerprint")
    return faces


def default_cache_dir() -> Path:
    """Return the user's cache directory."""
    if own := os.environ.get("FER_SEARCH_CACHE"):
        return Path(own)
    if shared := os.environ.get("XDG_CACHE_HOME"):
        return Path(shared, "fer_search")
    return Path("~/.cache/fer_search").expanduser()
