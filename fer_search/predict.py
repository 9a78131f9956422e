"""A bundle to probabilities, by ONNX Runtime alone: no torch, no training code."""

import hashlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal, Self

import numpy as np
import onnx
import onnxruntime
from numpy.typing import NDArray
from onnx.external_data_helper import uses_external_data
from pydantic import BaseModel, Field, ValidationError, model_validator

from fer_search.annotation import annotate
from fer_search.data.faces import MOST_SIZE, ImageForm
from fer_search.errors import InvalidInput, problem
from fer_search.face_detector import FaceDetector
from fer_search.files import MOST_MODEL_BYTES, file_problem
from fer_search.pictures import Box, Source, centre_square, cut_face, open_picture
from fer_search.runs import read_json

MANIFEST = "manifest.json"
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
    """How the network is used: the views, the temperature of each set of views, and the logit adjustment."""

    views: str
    temperature: dict[str, float]
    val_accuracy: dict[str, float]
    val_nll: dict[str, float]
    tau: float = 0.0
    tau_tried: float = 0.0
    tau_p: float = 1.0
    log_prior: list[float] = []


class MemberEntry(BaseModel):
    """A network of an ensemble: how often it counts beside others, and the temperature of its answer there."""

    count: int = Field(1, ge=1, le=1_000)
    temperature: float = Field(1.0, gt=0, allow_inf_nan=False)


class Manifest(BaseModel):
    """What a bundle's manifest must hold, beside what is only there to be read by people."""

    classes: list[str] = Field(min_length=2)
    input: InputEntry
    data: DataEntry
    files: dict[str, FileEntry]
    prediction: PredictionEntry | None = None
    members: list[MemberEntry] | None = Field(None, min_length=2)


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


@dataclass(frozen=True)
class Prediction:
    """What a bundle says of a face in a picture, or that a picture has none: then there is no box."""

    source: Source
    box: Box | None
    probabilities: dict[str, float]

    @property
    def emotion(self) -> str | None:
        """The most probable class."""
        return max(self.probabilities, key=self.probabilities.__getitem__, default=None)

    def as_row(self, *, with_box: bool) -> dict[str, Any]:
        """Return it for JSON; a box is left, top, right and bottom in pixels."""
        box = {"box": None if self.box is None else [round(edge) for edge in self.box]} if with_box else {}
        row = {"image": str(self.source.path), "emotion": self.emotion, "probabilities": self.probabilities or None}
        return {**row, **box}


def predict_pictures(
    predictor: Predictor, sources: Sequence[Source], *, detector: FaceDetector | None
) -> list[Prediction]:
    """Return what there is of each picture: of its largest centred square, or with a detector of each face in it.

    Raises InvalidInput with all pictures that cannot be read.
    """
    found: list[tuple[Source, Box | None]] = []
    pixels: list[NDArray[np.uint8]] = []
    problems: list[str] = []
    for source in sources:
        try:
            picture = open_picture(source)
            boxes = [centre_square(picture)] if detector is None else detector.find(picture)
            shown = picture.convert("L" if predictor.channels == 1 else "RGB")
        except InvalidInput as error:
            problems.extend(error.problems)
            continue
        found += [(source, box) for box in boxes] or [(source, None)]
        pixels += [cut_face(shown, box, size=predictor.image_size) for box in boxes]
    if problems:
        raise InvalidInput(problems)
    rows = iter(predictor.predict(np.stack(pixels)) if pixels else ())
    return [
        Prediction(
            source, box, {} if box is None else dict(zip(predictor.classes, map(float, next(rows)), strict=True))
        )
        for source, box in found
    ]


def draw_predictions(predictions: Sequence[Prediction], copies: Mapping[Source, Path]) -> None:
    """Write a copy of each picture with the predictions on it."""
    for source, path in copies.items():
        labels = [
            (each.box, f"{each.emotion} {each.probabilities[each.emotion]:.0%}")
            for each in predictions
            if each.source is source and each.box is not None and each.emotion is not None
        ]
        path.parent.mkdir(parents=True, exist_ok=True)
        annotate(open_picture(source), labels).save(path, quality=95)


def read_manifest(bundle: Path) -> dict[str, Any]:
    """Read and verify a bundle's manifest: format, keys, plain file names, checksums.

    Only what is beside the manifest belongs to the bundle: a name with a folder in it, or a link, is refused.
    """
    path = bundle / MANIFEST
    if not path.exists():
        raise InvalidInput(problem(bundle, "bundle", "must be a directory that export wrote", f"no {MANIFEST} in it"))
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
