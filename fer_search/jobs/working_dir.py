"""What travels to the cluster: this copy of the package, as it is here, and the files that a command refers to."""

import shutil
import tempfile
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from importlib.metadata import distribution
from pathlib import Path

PACKAGE = Path(__file__).resolve().parents[1]


@contextmanager
def working_dir(files: Mapping[str, Path]) -> Iterator[Path]:
    """Make a directory that a job runs in, for the length of the block, with `files` under their new names.

    The package lies in it under its own name, so that it goes before one that is installed on the cluster, and so does
    what is known of it as a distribution: its version and its requirements.
    """
    with tempfile.TemporaryDirectory(prefix="fer_search_") as scratch:
        directory = Path(scratch)
        shutil.copytree(PACKAGE, directory / PACKAGE.name, ignore=shutil.ignore_patterns("__pycache__"))
        known = distribution("fer-search")
        metadata = directory / f"fer_search-{known.version}.dist-info" / "METADATA"
        metadata.parent.mkdir()
        metadata.write_text(str(known.read_text("METADATA") or known.read_text("PKG-INFO")), encoding="utf-8")
        for name, path in files.items():
            (directory / name).parent.mkdir(exist_ok=True)
            shutil.copyfile(path, directory / name)
        yield directory
