"""What a bundle says of the images to train on, as soft labels for another network to learn from.

Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015, https://arxiv.org/abs/1503.02531).
"""

from pathlib import Path

from fer_search.bundle import FILES
from fer_search.data.fer2013 import load_faces
from fer_search.data.soft_labels import SoftLabels, write_soft_labels
from fer_search.errors import InvalidInput, problem
from fer_search.files import read_toml
from fer_search.predict import Predictor, bundle_form, sha256_of
from fer_search.recipe import Recipe
from fer_search.record import split_for


def distill(bundle: Path, *, output: Path, data: str | None = None) -> SoftLabels:
    """Write what the exported network in the directory `bundle` says of the images to train on to the file `output`.

    The images are all that its own split has to train on: none that it was judged on, and a training that is taught by
    it must have the same split. It is the network as `predict` uses it, an ensemble too, by ONNX Runtime. `data` are by
    default where it says that its own were, and must be the same. Raises InvalidInput otherwise, and where `output` is
    there.
    """
    if output.exists():
        raise InvalidInput(problem(output, "output", "must not be there yet", "a file or folder"))
    teacher = Predictor(bundle)
    manifest = teacher.manifest
    source = data or manifest["data"]["source"]
    faces = load_faces(source)
    fingerprint, form = faces.fingerprint(), bundle_form(manifest)
    rule = "must be {!r}, as what {} was trained on, or it may know the images that its pupil is judged on"
    if fingerprint != manifest["data"]["fingerprint"]:
        raise InvalidInput(problem(source, "data", rule.format(manifest["data"]["fingerprint"], bundle), fingerprint))
    assert faces.form == form, "the fingerprint is of the form too"
    recipe = Recipe.stored(read_toml(bundle / FILES["recipe"]), source=bundle / FILES["recipe"])
    fit = split_for(faces, recipe.replace({"fit_fraction": 1.0})).fit
    made = {"by": "distill", "bundle": bundle.resolve().name, "onnx": sha256_of(bundle / FILES["onnx"])}
    labels = SoftLabels.of(
        fit, teacher.predict(fit.pixels), fingerprint=fingerprint, split=recipe.model_dump(), made=made
    )
    write_soft_labels(labels, output)
    return labels
