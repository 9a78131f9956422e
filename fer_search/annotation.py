"""Predictions drawn on copies of the pictures: a box and a label for each face."""

import math
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

from PIL import Image, ImageDraw, ImageFont

from fer_search.errors import InvalidInput, problem
from fer_search.pictures import IMAGE_SUFFIXES, STDIN, Box, Source

SMALLEST_SIDE = 320
"""Pixels to which a smaller picture is enlarged, so that a label can be read on it."""
LINE, TEXT = "#ffcc00", "#000000"


def annotation_paths(sources: Sequence[Source], target: Path) -> list[Path]:
    """Return where the copy of each picture goes: the file `target`, or below the folder `target` under its own name.

    Raises InvalidInput where a copy would replace a file, or two would have the same name.
    """
    if target.suffix.lower() in IMAGE_SUFFIXES:
        if len(sources) > 1:
            rule = f"must be a folder for {len(sources)} pictures"
            raise InvalidInput(problem("command line", "annotate", rule, str(target)))
        paths = [target]
    else:
        paths = [target / _copy_name(source) for source in sources]
    rule = "must be the name of one picture only"
    problems = [problem(target, "annotate", rule, path.name) for path, count in Counter(paths).items() if count > 1]
    problems += [problem(path, "annotate", "must not be there yet", "a file") for path in paths if path.exists()]
    if target.is_file() and paths != [target]:
        problems.append(problem(target, "annotate", "must be a folder, or end as an image does", "a file"))
    if problems:
        raise InvalidInput(problems)
    return paths


def annotate(picture: Image.Image, labels: Sequence[tuple[Box, str]]) -> Image.Image:
    """Return an RGB copy of a picture with a labelled box for each face; a small picture is enlarged first."""
    factor = math.ceil(SMALLEST_SIDE / min(picture.size)) if min(picture.size) < SMALLEST_SIDE else 1
    size = (factor * picture.width, factor * picture.height)
    copy = picture.convert("RGB").resize(size, Image.Resampling.BICUBIC)
    draw, side = ImageDraw.Draw(copy), min(copy.size)
    font = ImageFont.load_default(max(14, side // 24))
    for box, label in labels:
        left, top, right, bottom = (factor * edge for edge in box)
        draw.rectangle((left, top, right - 1, bottom - 1), outline=LINE, width=max(2, side // 200))
        *_, width, height = draw.textbbox((0, 0), label, font=font)
        x = max(0, min(left, copy.width - width - 4))
        y = top - height - 4 if top >= height + 4 else top
        draw.rectangle((x, y, x + width + 4, y + height + 4), fill=LINE)
        draw.text((x + 2, y + 2), label, fill=TEXT, font=font)
    return copy


def _copy_name(source: Source) -> str:
    if source.path == STDIN:
        return "stdin.png"
    return source.name if Path(source.name).suffix.lower() in IMAGE_SUFFIXES else f"{source.name}.png"
