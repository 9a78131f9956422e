"""FER2013 as image folders: `train/<emotion>/*` and `test/<emotion>/*`."""

from __future__ import annotations

import io
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from difflib import get_close_matches
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_search.data.faces import EMOTIONS, IMAGE_SIZE, OFFICIAL_USAGES, Faces
from fer_search.data.problems import reject
from fer_search.errors import InvalidInput, problem
from fer_search.files import MOST_IMAGE_BYTES, file_problem

# The usage of a split whose file names do not tell: test/ holds PublicTest and PrivateTest together.
USAGE_OF_SPLIT = {"train": "Training", "test": "Test"}
SUFFIXES = (".jpg", ".jpeg", ".png")
_FILES_PER_TASK = 256


class ImageFile(NamedTuple):
    """One image of the folder form, before it is opened."""

    name: str  # relative to the root folder, with forward slashes
    label: int
    usage: str
    size: int  # bytes
    mtime_ns: int


def is_fer2013(root: Path) -> bool:
    """Return whether the folders below `root` are meant to be FER2013's, rather than classes of other data.

    They are where each is called as an emotion or nearly so, half of them exactly, none of the seven is missing, and
    the images are 48x48 and grey: so that a slip in a name is told, and not taken for a class of its own.
    """
    names = {entry.name for split in USAGE_OF_SPLIT for entry in visible_entries(root / split) if entry.is_dir()}
    nearest = {name: get_close_matches(name.lower(), EMOTIONS, n=1) for name in names}
    meant = {match for matches in nearest.values() for match in matches}
    exact = {name for name in names if name.lower() in EMOTIONS}
    if not all(nearest.values()) or 2 * len(exact) < len(names) or 1 < len(meant) < len(EMOTIONS):
        return False
    files = (Path(file.path) for name in sorted(names) for file in visible_entries(root / "train" / name))
    first = next((file for file in files if file.name.lower().endswith(SUFFIXES)), None)
    return first is None or not isinstance(_decode(first), str)


def list_images(root: Path) -> list[ImageFile]:
    """List the images below `root`, sorted by name, with emotions mapped by folder name.

    The usage comes from the prefix `Training_`, `PublicTest_` or `PrivateTest_` where every file of a split has one.

    Raises:
        InvalidInput: for an unknown class folder, a file that is no image, or a folder without images.
    """
    problems: list[str] = []
    images = [image for split in USAGE_OF_SPLIT for image in _list_split(root, split, problems)]
    reject(problems)
    if not images:
        raise InvalidInput(problem(root, "folder", "must have images in train/<emotion>/ and test/<emotion>/", "none"))
    return sorted(images, key=lambda image: image.name)


def read_images(root: Path, images: Sequence[ImageFile]) -> Faces:
    """Decode the images that `list_images` found below `root`, on a thread pool.

    Raises:
        InvalidInput: naming every file that is not a grey image of 48x48 pixels.
    """
    paths = [root / image.name for image in images]
    tasks = [paths[start : start + _FILES_PER_TASK] for start in range(0, len(paths), _FILES_PER_TASK)]
    with ThreadPoolExecutor() as pool:
        decoded = [pixels for task in pool.map(_decode_all, tasks) for pixels in task]
    reject([pixels for pixels in decoded if isinstance(pixels, str)])
    return Faces(
        pixels=np.array(decoded, dtype=np.uint8),
        labels=np.array([image.label for image in images], dtype=np.int64),
        usage=np.array([image.usage for image in images]),
        names=np.array([image.name for image in images]),
    )


def _list_split(root: Path, split: str, problems: list[str]) -> list[ImageFile]:
    found: list[ImageFile] = []
    for folder in visible_entries(root / split):
        if folder.name not in EMOTIONS or not folder.is_dir():
            nearest = get_close_matches(folder.name.lower(), EMOTIONS, n=1)
            hint = f" (is {nearest[0]!r} meant?)" if nearest else ""
            rule = f"must hold one folder for each emotion, {', '.join(EMOTIONS)}{hint}"
            problems.append(problem(root, split, rule, folder.name))
            continue
        files = images_of(root, f"{split}/{folder.name}", problems)
        found += [each._replace(label=EMOTIONS.index(folder.name)) for each in files]
    if all(image.usage in OFFICIAL_USAGES for image in found):
        return found
    return [image._replace(usage=USAGE_OF_SPLIT[split]) for image in found]


def images_of(root: Path, folder: str, problems: list[str]) -> list[ImageFile]:
    """Return the images in a folder below `root`, their usages being what stands before a `_` in their names; adds a
    problem for each file that is none.
    """
    found: list[ImageFile] = []
    for file in visible_entries(root / folder):
        name = f"{folder}/{file.name}"
        if not file.name.lower().endswith(SUFFIXES):
            problems.append(problem(root, name, f"must be an image ({', '.join(SUFFIXES)})", file.name))
            continue
        stat = file.stat()
        found.append(ImageFile(name, -1, file.name.partition("_")[0], stat.st_size, stat.st_mtime_ns))
    return found


def visible_entries(folder: Path) -> list[os.DirEntry[str]]:
    """Return what is in a folder, sorted by name, without what is hidden; nothing where there is no such folder."""
    if not folder.is_dir():
        return []
    # scandir and not Path.iterdir: its entries spare two system calls a file, which is most of a cached load.
    with os.scandir(folder) as entries:
        return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)


def _decode_all(paths: Sequence[Path]) -> list[NDArray[np.uint8] | str]:
    return [_decode(path) for path in paths]


def _decode(path: Path) -> NDArray[np.uint8] | str:
    """Return the pixels, or the problem with the file."""
    if found := file_problem(path, most_bytes=MOST_IMAGE_BYTES):
        return found
    try:
        with Image.open(io.BytesIO(path.read_bytes())) as image:
            if image.size != (IMAGE_SIZE, IMAGE_SIZE):
                return problem(path, "size", f"must be {IMAGE_SIZE}x{IMAGE_SIZE} pixels", image.size)
            if image.mode not in ("L", "P", "RGB"):
                return problem(path, "mode", "must be 8-bit grey", image.mode)
            channels = np.asarray(image if image.mode == "L" else image.convert("RGB"))
    except Exception as error:  # decoders raise whatever they trip over
        return problem(path, "file", "must be a readable image", str(error))
    if channels.ndim == 2:
        return channels
    if (channels != channels[:, :, :1]).any():
        return problem(path, "mode", "must be grey, with three equal channels at most", "a coloured image")
    return channels[:, :, 0]
