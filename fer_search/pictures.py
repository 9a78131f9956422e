"""Pictures that a user gives: found in folders or piped in, opened upright, and faces cut out of them. No torch."""

import io
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps

from fer_search.errors import InvalidInput, problem
from fer_search.files import MEGABYTE, MOST_IMAGE_BYTES, MOST_IMAGE_PIXELS, check_file

IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
STDIN = Path("-")

Box = tuple[float, float, float, float]
"""Left, top, right and bottom in pixels of a picture that is upright."""


@dataclass(frozen=True)
class Source:
    """Where a picture comes from: a path, or the bytes that were piped in."""

    path: Path  # STDIN where it was piped in
    name: str  # below the folder that was given, or the file's own
    content: bytes | None = None


def find_pictures(paths: Sequence[Path]) -> list[Source]:
    """Return image files, the images below folders, and the one that is piped in for `-`, in order.

    Raises InvalidInput for what is none of these.
    """
    problems: list[str] = []
    if paths.count(STDIN) > 1:
        problems.append(problem("command line", "-", "must be given once", paths.count(STDIN)))
    found = [source for path in dict.fromkeys(paths) for source in _pictures_of(path, problems)]
    if problems:
        raise InvalidInput(problems)
    return found


def open_picture(source: Source) -> Image.Image:
    """Return a picture upright, grey or RGB; raises InvalidInput for what is none."""
    if source.content is None:
        check_file(source.path, most_bytes=MOST_IMAGE_BYTES)
    try:
        with Image.open(source.path if source.content is None else io.BytesIO(source.content)) as image:
            if image.width * image.height > MOST_IMAGE_PIXELS:  # as its header says, before anything is unpacked
                rule = f"must have at most {MOST_IMAGE_PIXELS:,} pixels"
                raise InvalidInput(problem(source.path, "image", rule, f"{image.width} x {image.height}"))
            return ImageOps.exif_transpose(image).convert(Image.getmodebase(image.mode))
    except InvalidInput:
        raise
    except Exception as error:  # decoders raise whatever they trip over
        raise InvalidInput(problem(source.path, "image", "must be a readable image", str(error))) from error


def centre_square(picture: Image.Image) -> Box:
    """Return the largest square around the centre of a picture."""
    side = min(picture.size)
    left, top = (picture.width - side) / 2, (picture.height - side) / 2
    return left, top, left + side, top + side


def cut_face(picture: Image.Image, box: Box, *, size: int) -> NDArray[np.uint8]:
    """Return what is in a square box of a picture, (size, size) for a grey one and (size, size, 3) for RGB."""
    return np.asarray(picture.resize((size, size), Image.Resampling.BILINEAR, box=box), dtype=np.uint8)


def _pictures_of(path: Path, problems: list[str]) -> Iterator[Source]:
    if path == STDIN:
        content = _read_stdin(problems)
        yield Source(STDIN, str(STDIN), content)
    elif path.is_file():
        yield Source(path, path.name)
    elif path.is_dir():
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            problems.append(problem(path, "folder", f"must hold images ({', '.join(IMAGE_SUFFIXES)})", "none"))
        yield from (Source(image, str(image.relative_to(path))) for image in images)
    else:
        problems.append(problem(path, "path", "must be an image file, a folder, or - for stdin", "nothing there"))


def _read_stdin(problems: list[str]) -> bytes:
    """Return the bytes of the one image that is piped in."""
    rule = "must be an image that is piped in"
    if sys.stdin.isatty():
        problems.append(problem(STDIN, "stdin", rule, "a terminal"))
        return b""
    content = sys.stdin.buffer.read(MOST_IMAGE_BYTES + 1)
    if not content:
        problems.append(problem(STDIN, "stdin", rule, "nothing"))
    elif len(content) > MOST_IMAGE_BYTES:
        problems.append(problem(STDIN, "stdin", f"must be at most {MOST_IMAGE_BYTES / MEGABYTE:,.0f} MB", "more"))
    return content
