"""Faces in whole photographs, by dlib's frontal face detector, whose weights are part of its wheel. No torch.

It is optional: `pip install 'fer-search[photos]'`. It finds upright faces that look at the camera, and few others.
"""

import numpy as np
from PIL import Image

from fer_search.errors import InvalidInput, problem
from fer_search.pictures import Box

LONGEST_SIDE = 1600
"""Pixels to which a larger photograph is shrunk: a face that has 40 pixels then is still found."""
# The detector's boxes are smaller and lower than the pictures of FER2013, by so much of their own side and of
# the picture's (tests/benchmarks/bench_face_boxes.py): the network is shown a face as it has learnt to see them.
SIDE = 1.2
RISE = 0.045


class FaceDetector:
    """Finds faces; raises InvalidInput where dlib is not installed."""

    def __init__(self) -> None:
        try:
            import dlib
        except ImportError as error:
            rule = "must not be given without dlib: pip install 'fer-search[photos]'"
            raise InvalidInput(problem("command line", "faces", rule, str(error))) from error
        self._detect = dlib.get_frontal_face_detector()

    def find(self, picture: Image.Image) -> list[Box]:
        """Return a square box around each face of a picture, cut as FER2013's are, from the left."""
        grey = picture.convert("L")
        grey.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
        scale = picture.width / grey.width
        found = self._detect(np.asarray(grey), 1)  # enlarged twice, since the detector's window is 80 pixels wide
        boxes = [(scale * r.left(), scale * r.top(), scale * (r.right() + 1), scale * (r.bottom() + 1)) for r in found]
        return sorted(_as_in_fer2013(box, picture.size) for box in boxes)


def _as_in_fer2013(box: Box, picture_size: tuple[int, int]) -> Box:
    """Return the square of a picture that shows the face in a detector's box as FER2013 shows one."""
    left, top, right, bottom = box
    side = min(SIDE * (right - left), *picture_size)
    middles = ((left + right) / 2, (top + bottom) / 2 - RISE * side)
    starts = [min(max(middle - side / 2, 0), size - side) for middle, size in zip(middles, picture_size, strict=True)]
    return starts[0], starts[1], starts[0] + side, starts[1] + side
