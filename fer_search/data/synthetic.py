"""Procedural grey faces that show the seven emotions: the embedded data set, for demonstrations, tests and first runs.

A face is painted from signed distances to its parts, about a hundred faces at a time, in face coordinates: x to the
right, y down, the head about 0.7 wide and 0.95 high to each side of the origin. An emotion sets the means of the muscle
movements; people, poses, light, occlusion and blends of similar emotions vary so much that the classes overlap.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from fer_search.data.faces import EMOTIONS, IMAGE_SIZE, Faces
from fer_search.errors import InvalidInput, problem

# Per face (n, 1, 1) or per pixel (n, 48, 48).
_Floats = NDArray[np.floating[Any]]
_Number = _Floats | float

MIN_FACES = 50
_FACES_PER_CHUNK = 128
# FER2013's shares of all 35,887 images.
_CLASS_SHARES = (0.138, 0.015, 0.143, 0.250, 0.169, 0.112, 0.173)
_MIN_PER_CLASS = 4


class _Movements(NamedTuple):
    """What the muscles of a face do, zero at rest; lengths in face coordinates, upwards positive."""

    inner_brows: _Floats
    outer_brows: _Floats
    upper_lids: _Floats
    lower_lids: _Floats
    mouth_corners: _Floats
    mouth_opening: _Floats
    mouth_width: _Floats
    upper_lip: _Floats
    teeth: _Floats  # 0 to 1, how much of the opening they fill
    forehead_lines: _Floats  # 0 to 1, as the next three
    frown_lines: _Floats
    nose_wrinkles: _Floats
    cheek_folds: _Floats


# Rows in the order of EMOTIONS, columns in that of _Movements.
_MEANS = np.array(
    [
        (-0.10, 0.01, 0.01, 0.02, -0.05, 0.05, -0.02, 0.01, 0.5, 0.0, 0.9, 0.2, 0.2),  # angry
        (-0.07, -0.03, -0.03, 0.03, -0.05, 0.04, 0.00, 0.06, 0.5, 0.0, 0.5, 0.9, 0.7),  # disgust
        (0.09, 0.03, 0.05, 0.01, -0.04, 0.09, 0.06, 0.01, 0.5, 0.6, 0.4, 0.0, 0.1),  # fear
        (0.00, 0.00, -0.02, 0.02, 0.13, 0.07, 0.10, 0.01, 0.8, 0.0, 0.0, 0.0, 0.7),  # happy
        (0.07, -0.05, -0.03, 0.00, -0.09, 0.01, -0.02, 0.00, 0.1, 0.2, 0.4, 0.0, 0.1),  # sad
        (0.11, 0.10, 0.06, 0.00, -0.01, 0.18, -0.06, 0.00, 0.2, 0.6, 0.0, 0.0, 0.0),  # surprise
        (0.00, 0.00, 0.00, 0.00, 0.00, 0.01, 0.00, 0.00, 0.1, 0.0, 0.0, 0.0, 0.0),  # neutral
    ],
    dtype=np.float32,
)
_SPREADS = np.array((0.025, 0.025, 0.014, 0.009, 0.028, 0.025, 0.021, 0.010, 0.2, 0.2, 0.2, 0.2, 0.2), dtype=np.float32)
# An expression leans towards the one that people take it for.
_LOOKALIKES = {
    "angry": "disgust",
    "disgust": "angry",
    "fear": "surprise",
    "happy": "neutral",
    "sad": "neutral",
    "surprise": "fear",
    "neutral": "sad",
}


def synthesize(num_faces: int = 3000, *, seed: int = 0, label_noise: float = 0.0) -> Faces:
    """Paint `num_faces` faces, bit-identical for the same arguments.

    The emotions come in FER2013's proportions, and 80, 10 and 10 % of each are Training, PublicTest and PrivateTest. A
    `label_noise` of 0.1 gives a tenth of the Training faces another emotion's label.

    Raises:
        InvalidInput: for fewer than 50 faces, or a label noise outside 0 to 1.
    """
    if num_faces < MIN_FACES:
        raise InvalidInput(problem("synthetic", "num_faces", f"must be at least {MIN_FACES}", num_faces))
    if not 0 <= label_noise <= 1:
        raise InvalidInput(problem("synthetic", "label_noise", "must be from 0 to 1", label_noise))
    rng = np.random.default_rng(seed)
    labels, usage = _draw_labels(num_faces, rng)
    chunks = [
        _photograph(_paint(_draw_movements(part, rng), rng), rng)
        for part in np.split(labels, range(_FACES_PER_CHUNK, num_faces, _FACES_PER_CHUNK))
    ]
    mislabelled = (rng.random(num_faces) < label_noise) & (usage == "Training")
    others = (labels + rng.integers(1, len(EMOTIONS), num_faces)) % len(EMOTIONS)
    return Faces(
        pixels=np.concatenate(chunks),
        labels=np.where(mislabelled, others, labels),
        usage=usage,
        names=np.array([f"{used}_{number}" for number, used in enumerate(usage.tolist(), start=1)]),
    )


def _draw_labels(num_faces: int, rng: np.random.Generator) -> tuple[NDArray[np.int64], NDArray[np.str_]]:
    counts = [max(round(share * num_faces), _MIN_PER_CLASS) for share in _CLASS_SHARES]
    counts[EMOTIONS.index("happy")] += num_faces - sum(counts)
    labels = np.repeat(np.arange(len(EMOTIONS)), counts)
    # Every ninth and tenth face of a class: exactly stratified, and a rare class is in Training first of all.
    place_in_class = np.concatenate([np.arange(count) for count in counts]) % 10
    usage = np.select([place_in_class == 8, place_in_class == 9], ["PublicTest", "PrivateTest"], "Training")
    order = rng.permutation(num_faces)
    return labels[order], usage[order]


def _draw_movements(labels: NDArray[np.int64], rng: np.random.Generator) -> _Movements:
    lookalikes = np.array([EMOTIONS.index(_LOOKALIKES[emotion]) for emotion in EMOTIONS])
    lean = 0.4 * rng.beta(1.0, 2.0, (len(labels), 1))
    intensity = rng.uniform(0.7, 1.3, (len(labels), 1))
    means = intensity * ((1 - lean) * _MEANS[labels] + lean * _MEANS[lookalikes[labels]])
    moved = means + _SPREADS * rng.standard_normal(means.shape)
    return _Movements(*(column[:, None, None] for column in moved.astype(np.float32).T))


def _paint(move: _Movements, rng: np.random.Generator) -> _Floats:
    """Paint one face for each row of movements: tones (n, 48, 48), 0 black to 1 white."""
    n = len(move.teeth)
    uniform = _uniform_for(n, rng)

    def chance(probability: float) -> _Floats:
        return (rng.random((n, 1, 1)) < probability).astype(np.float32)

    # Pose: roll, shift and scale move the whole head, turning it moves the features within.
    axis = ((np.arange(IMAGE_SIZE, dtype=np.float32) + 0.5) * 2 / IMAGE_SIZE - 1)[None]
    sine, scale = uniform(-0.12, 0.12), uniform(1.05, 1.2)
    cosine = np.sqrt(1 - np.square(sine))
    right, down = axis[:, None, :] - uniform(-0.04, 0.04), axis[:, :, None] - uniform(-0.04, 0.04)
    x = (cosine * right + sine * down) / scale
    y = (cosine * down - sine * right) / scale
    turn, nod = uniform(-0.12, 0.12), uniform(-0.05, 0.05)
    softness = uniform(0.04, 0.09) / scale

    canvas = np.broadcast_to(uniform(0, 1) + uniform(-0.3, 0.3) * x, (n, IMAGE_SIZE, IMAGE_SIZE)).astype(np.float32)

    def cover(distance: _Floats, tone: _Number, opacity: _Number = 1.0) -> None:
        """Cover where the signed distance is negative, with an edge as wide as the picture is soft."""
        nonlocal canvas
        alpha = np.clip(0.5 - distance / softness, 0, 1) * opacity
        canvas += (tone - canvas) * alpha

    # Head, neck and hair.
    skin, hair = uniform(0.4, 0.9), uniform(0.02, 0.55)
    width, height = uniform(0.62, 0.76), uniform(0.86, 0.98)
    cover(_ellipse(x, y + 0.1, width + uniform(0.02, 0.2), height + uniform(0.0, 0.25)), hair, chance(0.8))
    cover(np.maximum(np.abs(x) - 0.5 * width, 0.5 - y), skin * 0.75)
    radius = np.square(x / width) + np.square(y / height)
    head = (np.sqrt(radius) - 1) * width
    cover(head, skin * (1.06 - 0.25 * radius))
    cover(np.maximum(head - 0.03, y + uniform(0.55, 0.85) - uniform(-0.3, 0.6) * np.square(x)), hair, chance(0.85))

    # The features turn with the head, and both sides are painted at once.
    x = (x - turn) * (1 + turn * x)
    y = y - nod
    side = np.abs(x)
    shade, ink = skin * 0.55, uniform(0.03, 0.2)
    eye_x, eye_y = uniform(0.27, 0.33), uniform(-0.19, -0.12)
    brow_y = eye_y - uniform(0.18, 0.24)
    mouth_y = uniform(0.44, 0.52)

    # Wrinkles of the forehead, between the brows and on the nose.
    for above_brows in (0.2, 0.3):
        wrinkle = np.maximum(np.abs(y - brow_y + above_brows + move.inner_brows) - 0.012, side - 0.35)
        cover(wrinkle, shade, 0.6 * _share(move.forehead_lines))
    frown = _segment(side, y, (0.05, brow_y - 0.04), (0.07, brow_y + 0.1))
    cover(frown - 0.014, shade, 0.8 * _share(move.frown_lines))
    for line in (0.0, 0.08):
        wrinkle = _segment(side, y, (0.0, eye_y + line + 0.06), (0.12, eye_y + line + 0.02))
        cover(wrinkle - 0.014, shade, 0.7 * _share(move.nose_wrinkles))

    # Brows: a curve through inner end, arch and outer end.
    brow_tone = np.minimum(hair, skin * 0.6)
    along = (side - eye_x) / 0.19
    tilt, lift = (move.inner_brows - move.outer_brows) / 2, (move.inner_brows + move.outer_brows) / 2
    brow = y - (brow_y - lift + along * tilt + uniform(0.0, 0.05) * np.square(along) + uniform(0.0, 0.03) * along)
    cover(np.maximum(np.abs(brow) - uniform(0.02, 0.045), (np.abs(along) - 1) * 0.19), brow_tone)

    # Eyes: white, iris and upper lid.
    along = (side - eye_x) / uniform(0.15, 0.19)
    bow = 1 - np.square(along)
    size = uniform(0.06, 0.085)
    upper = eye_y - np.maximum(size + move.upper_lids, 0.008) * bow
    lower = eye_y + np.maximum(0.7 * size - move.lower_lids, 0.004) * bow
    opening = np.maximum(upper - y, y - lower)
    cover(opening - 0.05, shade, uniform(0, 0.35))
    cover(opening, 0.35 + 0.65 * skin)
    gaze = np.sign(x) * uniform(-0.04, 0.04)
    iris = np.sqrt(np.square(side - eye_x - gaze) + np.square(y - eye_y + 0.01)) - 0.075
    cover(np.maximum(iris, opening), ink)
    cover(np.maximum(np.abs(y - upper) - 0.016, (np.abs(along) - 1) * 0.15), ink, uniform(0.5, 1))

    # Nose and the folds from it to the mouth.
    nose_y = uniform(0.14, 0.22) - 0.3 * move.upper_lip
    nose = uniform(0.07, 0.11)
    cover(_segment(side, y, (0.06, eye_y + 0.05), (nose, nose_y - 0.06)) - 0.02, shade, uniform(0, 0.4))
    cover(_ellipse(side - 0.6 * nose, y - nose_y, 0.045, 0.028), shade * 0.6, 0.8)
    half_width = np.maximum(uniform(0.23, 0.31) + move.mouth_width, 0.12)
    fold = _segment(side, y, (nose + 0.05, nose_y - 0.02), (half_width + 0.07, mouth_y - move.mouth_corners / 2))
    cover(fold - 0.016, shade, 0.7 * _share(move.cheek_folds))

    # Beard, then the mouth: lips, opening and teeth along a centre line whose ends are the corners.
    beard = np.maximum(head + 0.02, 0.3 - y + 0.25 * np.square(x))
    cover(beard, hair, chance(0.15) * uniform(0.2, 0.7))
    along = x / half_width
    bow = 1 - np.square(along)
    centre = mouth_y + move.mouth_corners * (bow - 0.5) + uniform(-0.08, 0.08) * x
    open_by = np.maximum(move.mouth_opening, 0.012)
    upper = centre - (0.4 * open_by + np.maximum(move.upper_lip, 0)) * bow
    lower = centre + 1.2 * open_by * bow
    opening = np.maximum(upper - y, y - lower)
    ends = (np.abs(along) - 1) * half_width
    lips = uniform(0.02, 0.05) * np.sqrt(np.maximum(bow, 0))
    cover(np.maximum(opening - lips, ends), skin * uniform(0.45, 0.75))
    opening = np.maximum(opening, ends)
    cover(opening, 0.06)
    teeth = np.maximum(opening + 0.01, y - upper - (lower - upper) * 0.8 * _share(move.teeth))
    cover(teeth, uniform(0.7, 0.95), _share(2 * move.teeth))

    # Glasses, and something before the face: a hand, a microphone, the edge of another head.
    frame = np.abs(_ellipse(side - eye_x, y - eye_y - 0.02, 0.21, 0.16)) - 0.014
    cover(np.minimum(frame, np.maximum(np.abs(y - eye_y) - 0.014, side - 0.1)), ink, chance(0.12))
    before = _ellipse(x - uniform(-0.9, 0.9), y - uniform(0.2, 1.1), uniform(0.12, 0.35), uniform(0.12, 0.35))
    cover(before, uniform(0.05, 0.95), chance(0.2))
    return canvas


def _photograph(scene: _Floats, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Light the scene from a side and expose it: contrast, brightness, noise, and 256 grey levels."""
    uniform = _uniform_for(len(scene), rng)
    axis = np.linspace(-1, 1, IMAGE_SIZE, dtype=np.float32)[None]
    light = 1 + uniform(-0.45, 0.45) * axis[:, None, :] + uniform(-0.35, 0.35) * axis[:, :, None]
    exposed = 0.5 + uniform(0.55, 1.2) * (scene * light - 0.5) + uniform(-0.12, 0.12)
    exposed += uniform(0.01, 0.05) * rng.standard_normal(scene.shape, dtype=np.float32)
    return np.rint(np.clip(exposed, 0, 1) * 255).astype(np.uint8)


def _uniform_for(num_faces: int, rng: np.random.Generator) -> Callable[[float, float], _Floats]:
    """Return a function that draws one number between two bounds for each face."""

    def uniform(low: float, high: float) -> _Floats:
        return rng.uniform(low, high, (num_faces, 1, 1)).astype(np.float32)

    return uniform


def _ellipse(x: _Floats, y: _Floats, half_width: _Number, half_height: _Number) -> _Floats:
    """Signed distance to an ellipse round the origin, good enough near its outline."""
    radius = np.sqrt(np.square(x / half_width) + np.square(y / half_height))
    distance: _Floats = (radius - 1) * np.minimum(half_width, half_height)
    return distance


def _segment(x: _Floats, y: _Floats, start: tuple[_Number, _Number], end: tuple[_Number, _Number]) -> _Floats:
    """Distance to the line segment from start to end, each (x, y)."""
    run, rise = end[0] - start[0], end[1] - start[1]
    x, y = x - start[0], y - start[1]
    along = np.clip((x * run + y * rise) / (run * run + rise * rise), 0, 1)
    distance: _Floats = np.sqrt(np.square(x - along * run) + np.square(y - along * rise))
    return distance


def _share(amount: _Floats) -> _Floats:
    return np.clip(amount, 0, 1)
