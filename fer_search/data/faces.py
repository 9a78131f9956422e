"""`Faces`: labelled images as plain arrays, and their form. Knows nothing of files, splits or models."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

# FER2013's own order, which is not the alphabetical one of image folders: always map emotions by name.
EMOTIONS = ("angry", "disgust", "fear", "happy", "sad", "surprise", "neutral")
OFFICIAL_USAGES = ("Training", "PublicTest", "PrivateTest")
# "Test" is PublicTest and PrivateTest merged, as in the popular folder copies that lost the official split.
USAGES = (*OFFICIAL_USAGES, "Test")
IMAGE_SIZE = 48
MOST_SIZE = 224
"""The largest side in pixels that images are kept with: what most published networks were made for."""


@dataclass(frozen=True)
class ImageForm:
    """What a network has to know of the images that it is for: their classes in order, their side, their channels."""

    classes: tuple[str, ...]
    size: int  # pixels; images are square
    channels: int  # 1 grey, 3 red, green and blue

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of an image's pixels, as Faces holds them."""
        return (self.size, self.size) if self.channels == 1 else (self.size, self.size, self.channels)


FER2013 = ImageForm(EMOTIONS, IMAGE_SIZE, 1)


@dataclass(frozen=True, eq=False)
class Faces:
    """N faces; arrays only, so that they travel through an object store without a copy."""

    pixels: NDArray[np.uint8]  # (N, S, S) grey, or (N, S, S, 3) in colour
    labels: NDArray[np.int64]  # (N,), index into the classes
    usage: NDArray[np.str_]  # (N,), each one of USAGES
    names: NDArray[np.str_]  # (N,), leads back to the file or the csv row
    classes: tuple[str, ...] = EMOTIONS
    soft_labels: NDArray[np.float32] | None = None  # (N, classes), rows sum to 1; only of images to train on

    def __post_init__(self) -> None:
        num_faces = len(self.pixels)
        assert self.pixels.shape == (num_faces, *self.form.shape), self.pixels.shape
        assert self.pixels.dtype == np.uint8, self.pixels.dtype
        assert self.labels.dtype == np.int64, self.labels.dtype
        assert self.labels.shape == self.usage.shape == self.names.shape == (num_faces,)
        assert self.soft_labels is None or self.soft_labels.shape == (num_faces, len(self.classes))

    def __len__(self) -> int:
        return len(self.labels)

    def take(self, indices: NDArray[np.int64] | NDArray[np.bool_]) -> Faces:
        """Return the faces at `indices`, in their order, or those where a boolean mask holds."""
        return Faces(
            self.pixels[indices],
            self.labels[indices],
            self.usage[indices],
            self.names[indices],
            self.classes,
            None if self.soft_labels is None else self.soft_labels[indices],
        )

    def where(self, usage: str) -> Faces:
        """Return the faces of one usage, possibly none."""
        return self.take(self.usage == usage)

    @property
    def form(self) -> ImageForm:
        """What a network for these faces has to know."""
        return ImageForm(self.classes, self.pixels.shape[1], 1 if self.pixels.ndim == 3 else self.pixels.shape[3])

    @property
    def has_official_split(self) -> bool:
        """Whether PublicTest is known and told apart from PrivateTest."""
        present = np.unique(self.usage)
        return "PublicTest" in present and "Test" not in present

    def fingerprint(self) -> str:
        """Return 16 hex digits that identify images, labels and usages, whatever their order, names and file form."""
        tags = [f"{label} {usage}".encode() for label, usage in zip(self.labels, self.usage, strict=True)]
        digests = sorted(
            hashlib.blake2b(image.tobytes() + tag, digest_size=16).digest()
            for image, tag in zip(self.pixels, tags, strict=True)
        )
        # FER2013's form says nothing, so that its fingerprints are those from before there were others.
        form = b"" if self.form == FER2013 else repr(self.form).encode()
        return hashlib.sha256(form + b"".join(digests)).hexdigest()[:16]
