"""Writing a file or a directory so that readers only ever see it whole."""

import errno
import os
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from uuid import uuid4


@contextmanager
def replacing(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path` to write to; it becomes `path` on success and is removed on failure.

    Missing parent directories are created. What was written, a file or a directory with all that is in it, is on the
    disk before it gets its name, so that not even a power cut leaves half of it; and when the block has ended, so is
    the name.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{path.name}.{uuid4().hex}.tmp")
    try:
        yield temporary
        if temporary.exists():
            _flush(temporary)
        temporary.replace(path)
        _flush_one(path.parent)
    except OSError as error:
        if error.errno is None or error.filename is not None:
            raise
        raise OSError(error.errno, error.strerror, str(path)) from error  # writing does not say to which file
    finally:
        if temporary.is_dir():
            shutil.rmtree(temporary)
        temporary.unlink(missing_ok=True)


def _flush(path: Path) -> None:
    """Put a file, or a directory and all that is in it, on the disk; what is there already costs next to nothing."""
    if path.is_dir():
        for child in path.iterdir():
            _flush(child)
    _flush_one(path)


def _flush_one(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EBADF, errno.EINVAL):  # a file system that cannot flush directories
            raise
    finally:
        os.close(descriptor)
