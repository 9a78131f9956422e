"""A bundle to probabilities, by ONNX Runtime alone: no torch, no training code."""

import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.external_data_helper import uses_external_data
from PIL import Image, ImageOps
from pydantic import BaseModel, Field, ValidationError, model_validator

from fer_search.data.faces import MOST_SIZE, ImageForm
from fer_search.errors import InvalidInput, problem
from fer_search.files import (
    MOST_IMAGE_BYTES,
    MOST_IMAGE_PIXELS,
    MOST_MODEL_BYTES,
    check_file,
    file_problem,
)
from fer_search.runs import read_json

MANIFEST = "manifest.json"
IMAGE_SUFFIXES = (".jpg", ".jpeg", ".png", ".bmp", ".webp")
BATCH = 64  # faces; an exported network may look at each in five views


class FileEntry(BaseModel):
    """A file of a bundle."""

    name: str = Field(min_length=1, pattern=r"^[^\x00]+$")
    sha256: str


class InputEntry(BaseModel):
    """What the network takes."""

    height: int = Field(ge=1, le=MOST_SIZE)
    width: int = Field(ge=1, le=MOST_SIZE)
    channels: Literal[1, 3] = 1

    @model_validator(mode="after")
    def _square(self) -> Self:
        if self.height != self.width:
            raise ValueError(f"height and width must be equal, got {self.height} and {self.width}")
        return self


class DataEntry(BaseModel):
    """What the network was trained on."""

    source: str
    fingerprint: str


class PredictionEntry(BaseModel):
    """How the network is used: the views, and the temperature of each set of views."""

    views: str
    temperature: dict[str, float]
    val_accuracy: dict[str, float]
    val_nll: dict[str, float]


class Manifest(BaseModel):
    """What a bundle's manifest must hold, beside what is only there to be read by people."""

    classes: list[str] = Field(min_length=2)
    input: InputEntry
    data: DataEntry
    files: dict[str, FileEntry]
    prediction: PredictionEntry | None = None


class Predictor:
    """The exported network of a bundle directory; raises InvalidInput for a missing, damaged or foreign bundle."""

    def __init__(self, bundle: Path) -> None:
        self.manifest = read_manifest(bundle)
        self.classes: tuple[str, ...] = tuple(self.manifest["classes"])
        form = bundle_form(self.manifest)
        self.image_size, self.channels = form.size, form.channels
        self._session = read_network(bundle / self.manifest["files"]["onnx"]["name"], form)

    def predict(self, pixels: NDArray[np.uint8]) -> NDArray[np.float32]:
        """Return the probabilities (N, classes) of faces, (N, size, size) grey or (N, size, size, 3) in colour."""
        channels_first = pixels[:, None] if self.channels == 1 else np.moveaxis(pixels, -1, 1)
        images = channels_first.astype(np.float32, order="C") / 255
        batches = [images[i : i + BATCH] for i in range(0, len(images), BATCH)]
        logits = np.concatenate([self._session.run(["logits"], {"images": batch})[0] for batch in batches])
        exponentials = np.exp(logits - logits.max(1, keepdims=True))
        probabilities: NDArray[np.float32] = exponentials / exponentials.sum(1, keepdims=True)
        return probabilities


def read_network(path: Path, form: ImageForm) -> onnxruntime.InferenceSession:
    """Load an ONNX file that takes `images` and gives `logits`; raises InvalidInput for any other.

    What could read other files or never end is refused: tensors that are stored elsewhere, and control flow.
    """
    content = path.read_bytes()
    try:
        model = onnx.load_model_from_string(content)
        if not _is_plain(model):
            raise ValueError("tensors that are stored elsewhere, or control flow")
        session = onnxruntime.InferenceSession(content, providers=["CPUExecutionProvider"])
        blank = np.zeros((1, form.channels, form.size, form.size), np.float32)
        logits = session.run(["logits"], {"images": blank})[0]
    except Exception as error:  # the runtime has a dozen of its own, without a common name
        raise InvalidInput(problem(path, "file", "must be a network that ONNX Runtime can run", str(error))) from error
    if logits.shape != (1, len(form.classes)):
        raise InvalidInput(problem(path, "logits", f"must be of shape (1, {len(form.classes)})", logits.shape))
    return session


def _is_plain(model: onnx.ModelProto) -> bool:
    """Return whether a network holds all of its tensors, and computes each node once."""
    attributes = [attribute for node in model.graph.node for attribute in node.attribute]
    tensors = [
        *model.graph.initializer,
        *(part for sparse in model.graph.sparse_initializer for part in (sparse.values, sparse.indices)),
        *(tensor for attribute in attributes for tensor in (attribute.t, *attribute.tensors)),
    ]
    nested = any(attribute.HasField("g") or attribute.graphs for attribute in attributes)
    return not (nested or model.functions or any(uses_external_data(tensor) for tensor in tensors))


def predict_files(predictor: Predictor, paths: list[Path]) -> list[tuple[Path, str, dict[str, float]]]:
    """Return for each image of `paths` (files and folders) its path, its class and the probability of each class."""
    images = find_images(paths)
    pixels = np.stack([read_face(path, size=predictor.image_size, channels=predictor.channels) for path in images])
    return [
        (path, predictor.classes[int(row.argmax())], dict(zip(predictor.classes, map(float, row), strict=True)))
        for path, row in zip(images, predictor.predict(pixels), strict=True)
    ]


def read_manifest(bundle: Path) -> dict[str, Any]:
    """Read and verify a bundle's manifest: format, keys, plain file names, checksums.

    Only what is beside the manifest belongs to the bundle: a name with a folder in it, or a link, is refused.
    """
    path = bundle / MANIFEST
    manifest = read_json(path)
    try:
        files = Manifest.model_validate(manifest).files
    except ValidationError as error:
        found = [(".".join(map(str, item["loc"])) or "keys", item["msg"], item["input"]) for item in error.errors()]
        raise InvalidInput([problem(path, *each) for each in found]) from error
    if "onnx" not in files:
        raise InvalidInput(problem(path, "files", "must name the onnx file", sorted(files)))
    problems = []
    for role, file in files.items():
        member = bundle / file.name
        if Path(file.name).name != file.name or file.name == ".." or member.is_symlink():
            problems.append(problem(path, f"files.{role}.name", "must be the name of a file beside it", file.name))
        elif found_problem := file_problem(member, most_bytes=MOST_MODEL_BYTES):
            problems.append(found_problem)
        elif (found_sum := sha256_of(member)) != file.sha256:
            problems.append(problem(member, "sha256", "must be the manifest's", found_sum))
    if problems:
        raise InvalidInput(problems)
    return manifest


def bundle_form(manifest: dict[str, Any]) -> ImageForm:
    """Return the form of the images that a bundle's network takes."""
    image = InputEntry.model_validate(manifest["input"])
    return ImageForm(tuple(manifest["classes"]), image.height, image.channels)


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


def read_face(path: Path, *, size: int, channels: int = 1) -> NDArray[np.uint8]:
    """Read an image as a face, (size, size) grey or (size, size, 3) in colour, cut square around its centre.

    Raises InvalidInput if it is none.
    """
    check_file(path, most_bytes=MOST_IMAGE_BYTES)
    try:
        with Image.open(path) as image:
            if image.width * image.height > MOST_IMAGE_PIXELS:  # as its header says, before anything is unpacked
                rule = f"must have at most {MOST_IMAGE_PIXELS:,} pixels"
                raise InvalidInput(problem(path, "image", rule, f"{image.width} x {image.height}"))
            upright = ImageOps.exif_transpose(image).convert("L" if channels == 1 else "RGB")
            face = ImageOps.fit(upright, (size, size), Image.Resampling.BILINEAR)
    except InvalidInput:
        raise
    except Exception as error:  # decoders raise whatever they trip over
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
