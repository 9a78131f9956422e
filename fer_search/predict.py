"""A bundle to probabilities, by ONNX Runtime alone: no torch, no training code."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from fer_search.errors import InvalidInput, problem
from fer_search.runs import read_json

MANIFEST = "manifest.json"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
BATCH = 64  # faces; an exported network may look at each in five views


class Predictor:
    """The exported network of a bundle directory; raises InvalidInput for a missing, damaged or foreign bundle."""

    def __init__(self, bundle: Path) -> None:
        self.manifest = read_manifest(bundle)
        self.classes: tuple[str, ...] = tuple(self.manifest["classes"])
        self.image_size: int = self.manifest["input"]["height"]
        self._session = onnxruntime.InferenceSession(
            (bundle / self.manifest["files"]["onnx"]["name"]).read_bytes(), providers=["CPUExecutionProvider"]
        )

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities (N, classes) of grey faces (N, 48, 48)."""
        images = pixels[:, None].astype(np.float32) / 255
        batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        logits = np.concatenate([self._session.run(["logits"], {"images": batch})[0] for batch in batches])
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: NDArray[np.float32] = exponentials / exponentials.sum(1, keepdims=True)
        return probabilities


def predict_files(predictor: Predictor, paths: list[Path]) -> list[tuple[Path, str, dict[str, float]]]:
    """Return for each image of `paths` (files and folders) its path, its emotion and the probability of each class."""
    images = find_images(paths)
    pixels = np.stack([read_face(path, size=predictor.image_size) for path in images])
    return [
        (path, predictor.classes[int(row.argmax())], dict(zip(predictor.classes, map(float, row), strict=True)))
        for path, row in zip(images, predictor.predict(pixels), strict=True)
    ]


def read_manifest(bundle: Path) -> dict[str, Any]:
    """Read and verify a bundle's manifest: format, plain file names, checksums."""
    path = bundle / MANIFEST
    manifest = read_json(path)
    missing = [key for key in ("classes", "input", "files", "data") if key not in manifest]
    if missing or "onnx" not in manifest["files"]:
        raise InvalidInput(problem(path, "keys", "must hold classes, input, data and files.onnx", sorted(manifest)))
    problems = []
    for role, file in manifest["files"].items():
        name = file["name"]
        if Path(name).name != name:
            problems.append(problem(path, f"files.{role}.name", "must be a plain file name", name))
        elif not (bundle / name).is_file():
            problems.append(problem(path, f"files.{role}.name", "must stand beside the manifest", name))
        elif sha256_of(bundle / name) != file["sha256"]:
            problems.append(problem(bundle / name, "sha256", "must be the manifest's", sha256_of(bundle / name)))
    if problems:
        raise InvalidInput(problems)
    return manifest


def sha256_of(path: Path) -> str:
    """Return a file's SHA-256 in hexadecimal digits."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def find_images(paths: list[Path]) -> list[Path]:
    """Return image files and the images below folders, in order; raises InvalidInput for what is neither."""
    problems: list[str] = []
    found = [image for path in paths for image in _images_of(path, problems)]
    if problems:
        raise InvalidInput(problems)
    return found


def read_face(path: Path, *, size: int) -> NDArray[np.uint8]:
    """Read an image as a grey face (size, size), cut square around its centre; raises InvalidInput if it is none."""
    try:
        with Image.open(path) as image:
            upright = ImageOps.exif_transpose(image).convert("L")
            face = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    except (OSError, UnidentifiedImageError, Image.DecompressionBombError, SyntaxError, ValueError) as error:
        raise InvalidInput(problem(path, "image", "must be a readable image", str(error))) from error
    return np.asarray(face, dtype=np.uint8)


def _images_of(path: Path, problems: list[str]) -> Iterator[Path]:
    if path.is_file():
        yield path
    elif path.is_dir():
        images = sorted(file for file in path.rglob("*") if file.suffix.lower() in IMAGE_SUFFIXES)
        if not images:
            problems.append(problem(path, "folder", f"must hold images ({', '.join(IMAGE_SUFFIXES)})", "none"))
        yield from images
    else:
        problems.append(problem(path, "path", "must be an image file or a folder", "nothing there"))
