"""What a bundle says of the images to train on, as soft labels for another network to learn from.

Hinton, Vinyals and Dean, Distilling the Knowledge in a Neural Network (2015, https://arxiv.org/abs/1503.02531).
"""

from pathlib import Path

from fer_search.data.fer2013 import load_faces
from fer_search.data.soft_labels import SoftLabels, write_soft_labels
from fer_search.data.splits import JUDGED_BY
from fer_search.errors import InvalidInput, problem
from fer_search.files import read_toml
from fer_search.predict import Predictor
from fer_search.recipe import Recipe
from fer_search.record import split_for

RECIPE_ROLE = "recipe"
"""What a bundle's manifest calls its recipe; those of several networks are numbered."""


def distill(bundle: Path, *, output: Path, data: str | None = None) -> SoftLabels:
    """Write what the exported network in the directory `bundle` says of the images to train on to the file `output`.

    The images are all that its own split has to train on: none that it was judged on, and a training that is taught by
    it must have the same split. It is asked as `predict` asks it, by ONNX Runtime, whatever networks are in it. `data`
    are by default where it says that its own were, and must be the same. Raises InvalidInput otherwise, and where
    `output` is there.
    """
    if output.exists():
        raise InvalidInput(problem(output, "output", "must not be there yet", "a file or folder"))
    teacher = Predictor(bundle)
    recipe = _recipe_of(bundle, teacher)
    trained_on = teacher.manifest["data"]
    source = data or trained_on["source"]
    faces = load_faces(source)
    fingerprint = faces.fingerprint()
    if fingerprint != trained_on["fingerprint"]:
        rule = f"must have the fingerprint {trained_on['fingerprint']} of what {bundle} was trained on, or it may know"
        raise InvalidInput(problem(source, "data", f"{rule} images that its pupil is judged on", fingerprint))
    fit = split_for(faces, recipe.replace({"fit_fraction": 1.0})).fit
    made = {"by": "distill", "bundle": bundle.resolve().name, "onnx": teacher.manifest["files"]["onnx"]["sha256"]}
    labels = SoftLabels.of(
        fit, teacher.predict(fit.pixels), fingerprint=fingerprint, split=recipe.model_dump(), made=made
    )
    write_soft_labels(labels, output)
    return labels


def _recipe_of(bundle: Path, teacher: Predictor) -> Recipe:
    """Return the recipe of a bundle's network, or of its first; raises InvalidInput where they differ in the split."""
    files = teacher.manifest["files"]
    paths = [bundle / files[role]["name"] for role in sorted(files) if role.startswith(RECIPE_ROLE)]
    if not paths:
        raise InvalidInput(problem(bundle, "files", "must have the recipe of its network", sorted(files)))
    first, *others = [Recipe.stored(read_toml(path), source=path) for path in paths]
    rule = "must be {!r}, as of the bundle's other networks, or it may know images that its pupil is judged on"
    problems = [
        problem(path, key, rule.format(getattr(first, key)), getattr(other, key))
        for path, other in zip(paths[1:], others, strict=True)
        for key in JUDGED_BY
        if getattr(other, key) != getattr(first, key)
    ]
    if problems:
        raise InvalidInput(problems)
    return first
