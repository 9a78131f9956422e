"""Own data as image folders: `train/<class>/*` and perhaps `test/<class>/*`, or `<class>/*` alone.

The folders' names are the classes. Images may be of any size, grey or in colour; what a network sees are squares of one
size, all grey or all in colour.
"""

from __future__ import annotations

import logging
import statistics
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from fer_search.data.faces import EMOTIONS, MOST_SIZE, Faces, ImageForm
from fer_search.data.fer2013_folder import USAGE_OF_SPLIT, ImageFile, images_of, visible_entries
from fer_search.data.problems import reject
from fer_search.errors import InvalidInput, problem
from fer_search.files import MEGABYTE, MOST_IMAGE_BYTES, MOST_IMAGE_PIXELS, MOST_TABLE_BYTES, file_problem
from fer_search.pictures import Source, centre_square, cut_face, open_picture

logger = logging.getLogger(__name__)

FEWEST_IMAGES = 3
"""Of a class in Training: one to learn from, one to judge trials on, one for the final choice."""


def list_class_images(root: Path) -> tuple[tuple[str, ...], list[ImageFile]]:
    """Return the classes below `root`, and the images there, sorted by name.

    Classes are in the order of their names, the seven emotions in FER2013's. Without a folder `train` all is Training.

    Raises:
        InvalidInput: for fewer than two classes, for one of too few images, and for a file that is no image.
    """
    problems: list[str] = []
    has_splits = (root / "train").is_dir()
    splits = {f"{split}/": usage for split, usage in USAGE_OF_SPLIT.items()} if has_splits else {"": "Training"}
    classes = _classes_of(root / "train" if has_splits else root, problems)
    images = [image for split, usage in splits.items() for image in _list_split(root, split, usage, classes, problems)]
    if len(classes) < 2:
        problems.append(problem(root, "classes", "must be two folders of images at least", list(classes)))
    counts = Counter(image.label for image in images if image.usage == "Training")
    for label, name in enumerate(classes):
        if counts[label] < FEWEST_IMAGES:
            rule = f"must have at least {FEWEST_IMAGES} images to learn from and to be judged on"
            problems.append(problem(root, f"{'train/' if has_splits else ''}{name}", rule, counts[label]))
    reject(problems)
    read = USAGE_OF_SPLIT if has_splits else classes
    if others := [each.name for each in visible_entries(root) if each.name not in read]:
        logger.warning("%s: left out: %s", root, ", ".join(others))
    return classes, sorted(images, key=lambda image: image.name)


def read_class_images(root: Path, classes: tuple[str, ...], images: Sequence[ImageFile]) -> Faces:
    """Decode the images that `list_class_images` found below `root`, on a thread pool.

    They are cut square around the centre. Where they are not of one size then, or larger than MOST_SIZE, they are
    resized to the median of their shorter sides, or to MOST_SIZE, and a warning says so.

    Raises:
        InvalidInput: naming every file that is no image; and where all of them would not fit into memory.
    """
    paths = [root / image.name for image in images]
    with ThreadPoolExecutor() as pool:
        found = list(pool.map(_size_of, paths))
        sizes = [each for each in found if not isinstance(each, str)]
        reject([each for each in found if isinstance(each, str)])
        size = min(int(statistics.median(min(each) for each in sizes)), MOST_SIZE)
        _check_fits(root, size, len(images))
        decoded = list(pool.map(lambda path: _decode(path, size), paths))
    reject([each for each in decoded if isinstance(each, str)])
    if any(each != (size, size) for each in sizes):
        logger.warning(
            "%s: images from %d x %d to %d x %d pixels are cut square and resized to %d x %d "
            "(the median of their shorter sides, at most %d)",
            root, *min(sizes, key=min), *max(sizes, key=min), size, size, MOST_SIZE,
        )  # fmt: skip
    grey = all(not isinstance(each, str) and each.ndim == 2 for each in decoded)
    form = ImageForm(classes, size, 1 if grey else 3)
    pixels = np.empty((len(images), *form.shape), dtype=np.uint8)
    for place, each in zip(pixels, decoded, strict=True):
        assert not isinstance(each, str)
        place[...] = each if grey or each.ndim == 3 else each[:, :, None]
    return Faces(
        pixels=pixels,
        labels=np.array([image.label for image in images], dtype=np.int64),
        usage=np.array([image.usage for image in images]),
        names=np.array([image.name for image in images]),
        classes=classes,
    )


def _classes_of(folder: Path, problems: list[str]) -> tuple[str, ...]:
    names = [entry.name for entry in visible_entries(folder) if entry.is_dir()]
    problems.extend(
        problem(folder, "class", "must have a name that can be printed", name)
        for name in names
        if not name.isprintable()
    )
    return EMOTIONS if set(names) == set(EMOTIONS) else tuple(names)


def _list_split(root: Path, split: str, usage: str, classes: tuple[str, ...], problems: list[str]) -> list[ImageFile]:
    found: list[ImageFile] = []
    for folder in visible_entries(root / split):
        if not split and not folder.is_dir():
            continue
        if folder.name not in classes:
            rule = "must be a folder of a class" + (f", one of {', '.join(classes)}" if split == "test/" else "")
            problems.append(problem(root, f"{split}{folder.name}", rule, folder.name))
            continue
        files = images_of(root, f"{split}{folder.name}", problems)
        found += [each._replace(label=classes.index(folder.name), usage=usage) for each in files]
    return found


def _size_of(path: Path) -> tuple[int, int] | str:
    """Return width and height of an upright image by its header, or the problem with the file."""
    if found := file_problem(path, most_bytes=MOST_IMAGE_BYTES):
        return found
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_IMAGE_PIXELS:
                rule = f"must have at most {MOST_IMAGE_PIXELS:,} pixels"
                return problem(path, "image", rule, f"{image.width} x {image.height}")
            if image.mode.startswith(("I", "F")):
                return problem(path, "mode", "must have 8 bits a channel", image.mode)
            return image.size
    except Exception as error:  # decoders raise whatever they trip over
        return problem(path, "image", "must be a readable image", str(error))


def _decode(path: Path, size: int) -> NDArray[np.uint8] | str:
    """Return the pixels, (size, size) of a grey image and (size, size, 3) of another, or the problem with the file.

    The image is made upright, cut and resized as `predict` does it.
    """
    try:
        picture = open_picture(Source(path, path.name))
    except InvalidInput as error:
        return str(error)
    pixels = cut_face(picture, centre_square(picture), size=size)
    if pixels.ndim == 3 and (pixels == pixels[:, :, :1]).all():
        return pixels[:, :, 0].copy()
    return pixels


def _check_fits(root: Path, size: int, num_images: int) -> None:
    """Raise InvalidInput where the images in colour would take more than a file of them may."""
    if (needed := num_images * size * size * 3) > MOST_TABLE_BYTES:
        rule = f"must take at most {MOST_TABLE_BYTES // MEGABYTE:,} MB as {size} x {size} pixels (make them smaller)"
        reject([problem(root, "images", rule, f"{needed // MEGABYTE:,} MB")])
