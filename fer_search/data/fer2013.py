"""`load_faces`: FER2013 in whatever form it lies there, own data, or synthetic faces. Start reading here."""

import logging
from copy import deepcopy
from functools import cache
from pathlib import Path

import numpy as np

from fer_search.data.cache import cached
from fer_search.data.class_folders import list_class_images, read_class_images
from fer_search.data.faces import Faces
from fer_search.data.fer2013_csv import read_csv
from fer_search.data.fer2013_folder import is_fer2013, list_images, read_images, visible_entries
from fer_search.data.fer2013_parquet import read_parquet
from fer_search.data.remote import local_copy
from fer_search.data.synthetic import synthesize
from fer_search.data.uri import is_uri
from fer_search.errors import InvalidInput, problem

logger = logging.getLogger(__name__)

SYNTHETIC = "synthetic"
# In order of preference: the first two hold all labelled images, train.csv only the training images.
_CSV_NAMES = ("fer2013.csv", "icml_face_data.csv", "train.csv")


def load_faces(source: str | Path, *, cache_dir: Path | None = None) -> Faces:
    """Load labelled faces from `source`.

    `source` is "synthetic", or names, as a path or a URI (s3://, gs://, file://), a csv file (`fer2013.csv`,
    `icml_face_data.csv`, `train.csv`), a parquet file in our form, or a directory with one of those csv files or with
    images in `train/<class>/` and `test/<class>/`, or in `<class>/`. Copies of what is behind a URI, and decoded csv
    files and folders, are cached in `cache_dir`, by default a directory of the user (see `cache.cached`), until the
    source changes.

    Raises:
        InvalidInput: with every problem of the source, before anything is cached.
    """
    if source == SYNTHETIC:
        return deepcopy(_painted())
    remote = is_uri(str(source))
    path = local_copy(str(source), cache_dir=cache_dir) if remote else Path(source).expanduser()
    try:
        return _load(_resolve(path), cache_dir)
    except OSError as error:
        raise InvalidInput(problem(path, "source", "must be readable", str(error))) from error


@cache
def _painted() -> Faces:
    """Return the faces of SYNTHETIC, which take a second or two to paint."""
    return synthesize()


def canonical_source(source: str) -> str:
    """Return a source as it is found again from another working directory."""
    return source if source == SYNTHETIC or is_uri(source) else str(Path(source).expanduser().resolve())


def _resolve(path: Path) -> Path:
    """Return the csv that a directory holds, else the path itself."""
    if not path.exists():
        raise InvalidInput(problem(path, "source", f"must be {SYNTHETIC!r}, a file or a directory", "nothing there"))
    if not path.is_dir():
        return path
    for name in _CSV_NAMES:
        if (path / name).is_file():
            return path / name
    if not any(entry.is_dir() for entry in visible_entries(path)):
        rule = f"must hold {', '.join(_CSV_NAMES)}, or images in train/<class>/ and test/<class>/, or in <class>/"
        raise InvalidInput(problem(path, "directory", rule, sorted(entry.name for entry in path.iterdir())))
    return path


def _load(path: Path, cache_dir: Path | None) -> Faces:
    if path.is_dir() and not ((path / "train").is_dir() and is_fer2013(path)):
        classes, images = list_class_images(path)
        identity = "\n".join(f"{image.name} {image.size} {image.mtime_ns}" for image in images)
        return cached(
            lambda: read_class_images(path, classes, images),
            identity=f"{path.resolve()}\n{identity}",
            cache_dir=cache_dir,
        )
    if path.is_dir():
        images = list_images(path)
        identity = "\n".join(f"{image.name} {image.size} {image.mtime_ns}" for image in images)
        faces = cached(lambda: read_images(path, images), identity=f"{path.resolve()}\n{identity}", cache_dir=cache_dir)
        if np.any(faces.usage == "Test"):
            logger.warning(
                "%s: the file names do not tell PublicTest from PrivateTest, so the official split is lost; "
                "the merged images are called Test, and so are numbers from them",
                path / "test",
            )
        return faces
    match path.suffix.lower():
        case ".csv":
            stat = path.stat()
            identity = f"{path.resolve()} {stat.st_size} {stat.st_mtime_ns}"
            faces = cached(lambda: read_csv(path), identity=identity, cache_dir=cache_dir)
            if path.name == "train.csv" and path.with_name("test.csv").exists():
                logger.warning("%s: left out, it has no labels", path.with_name("test.csv"))
            return faces
        case ".parquet":
            return read_parquet(path)
        case suffix:
            raise InvalidInput(problem(path, "source", "must be a .csv or .parquet file or a directory", suffix))
