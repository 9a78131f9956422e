"""Bundles measured on a split of a data set: one alone, or two on the same images with a paired test."""

from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fer_search.bundle import FILES
from fer_search.data.faces import Faces, ImageForm
from fer_search.data.fer2013 import load_faces
from fer_search.data.splits import read_private_test
from fer_search.errors import InvalidInput, problem
from fer_search.files import read_toml
from fer_search.predict import MANIFEST, PredictionEntry, bundle_form, read_manifest
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.training.measurement import Logits, ViewChoice, figures_of, split_logits
from fer_search.training.paired import compare
from fer_search.training.run import load_model
from fer_search.training.trainer import choose_device
from fer_search.training.views import VIEW_SETS

SPLITS = ("validation", "public", "public_unique", "private")


@dataclass(frozen=True)
class Bundle:
    """A bundle as it is measured: what it was trained on, and how its network is used."""

    directory: Path
    data: dict[str, Any]
    form: ImageForm
    recipe: Recipe
    choice: ViewChoice

    def network(self) -> nn.Module:
        """Return the trained network alone, in evaluation mode on the CPU."""
        return load_model(self.recipe, self.directory / FILES["weights"], self.form)

    def logits(self, faces: Faces) -> Logits:
        """Return the network's logits of faces for every view set."""
        return split_logits(self.network().to(choose_device()), faces)

    def record(self, fingerprint: str) -> dict[str, Any]:
        """Return what its figures on a part of the faces with this fingerprint must be read with."""
        return {
            "bundle": str(self.directory),
            "recipe_digest": self.recipe.digest(),
            "same_data_as_training": self.data["fingerprint"] == fingerprint,
            "views": self.choice.views,
            "temperature": self.choice.temperature[self.choice.views],
            "tau": self.choice.tau,
        }


def read_bundle(directory: Path) -> Bundle:
    """Read and verify a bundle; raises InvalidInput for one that is damaged or does not say how it predicts."""
    manifest = read_manifest(directory)
    if manifest.get("prediction") is None:
        rule = "must be there (a bundle of an older version can predict, but must be exported anew to be measured)"
        raise InvalidInput(problem(directory / MANIFEST, "prediction", rule, "nothing"))
    file = directory / FILES["recipe"]
    recipe = Recipe.stored(read_toml(file), source=file)
    prediction = PredictionEntry.model_validate(manifest["prediction"])
    if not all(prediction.views in each for each in (VIEW_SETS, prediction.temperature)):
        rule = f"must be one of {', '.join(VIEW_SETS)}, with a temperature"
        raise InvalidInput(problem(directory / MANIFEST, "prediction.views", rule, prediction.views))
    classes = manifest["classes"]
    if prediction.tau and len(prediction.log_prior) != len(classes):
        rule = f"must have a value for each of the {len(classes)} classes, where tau is not 0"
        raise InvalidInput(problem(directory / MANIFEST, "prediction.log_prior", rule, prediction.log_prior))
    return Bundle(directory, manifest["data"], bundle_form(manifest), recipe, ViewChoice(**prediction.model_dump()))


def assess(directory: Path, *, data: str | None, split: str, against: Path | None, ledger: Path) -> dict[str, Any]:
    """Return the figures of a bundle on one of SPLITS, plain and with test-time augmentation.

    `against` adds the other bundle's figures on the same images and a paired test of the two, each with the views that
    its own search-validation chose. A look at `private` is written to the ledger before it happens, one for both.

    Raises:
        InvalidInput: for a damaged bundle, for images that it is not for, or another one that may have trained
            on the images of the split.
    """
    if split not in SPLITS:
        raise InvalidInput(problem("command line", "split", f"must be one of {', '.join(SPLITS)}", split))
    first = read_bundle(directory)
    other = None if against is None else read_bundle(against)
    faces = load_faces(data or first.data["source"])
    for bundle in (first, other):
        if bundle is not None:
            _check_form(bundle, faces, source=data or first.data["source"])
    if other:
        _check_unseen(first, other, split=split, faces=faces)
    chosen, label = _choose(faces, first, other, split=split, ledger=ledger)
    fingerprint = faces.fingerprint()
    logits = first.logits(chosen)
    result = {
        "split": split,
        "label": label,
        **first.record(fingerprint),
        **figures_of(logits, chosen.labels, chosen.classes, first.choice),
    }
    if other:
        other_logits = other.logits(chosen)
        result["against"] = {
            **other.record(fingerprint),
            **figures_of(other_logits, chosen.labels, chosen.classes, other.choice),
        }
        ours, theirs = (
            choice.adjusted(each)[choice.views].argmax(1)
            for choice, each in ((first.choice, logits), (other.choice, other_logits))
        )
        result["paired"] = compare(ours, theirs, chosen.labels, num_classes=len(chosen.classes))
    return result


def _choose(faces: Faces, first: Bundle, other: Bundle | None, *, split: str, ledger: Path) -> tuple[Faces, str]:
    """Return the images of the first bundle's split and what they must be called."""
    if split == "private":
        purpose = f"evaluate bundle with recipe {first.recipe.digest()}"
        if other:
            purpose += f" against {other.recipe.digest()}"
        private = read_private_test(faces, ledger=ledger, purpose=purpose)
        return private, str(private.usage[0])
    splits = split_for(faces, first.recipe)
    if split == "validation":
        return splits.validation, "search-validation"
    if split == "public":
        return splits.public, splits.label
    if not splits.public_unique.any():
        raise InvalidInput(problem("data", split, "must have an image that Training has no copy of", "none"))
    return splits.public.take(splits.public_unique), f"{splits.label}, without copies"


def _check_form(bundle: Bundle, faces: Faces, *, source: str) -> None:
    """Raise InvalidInput for faces of other classes, or of another size or colour, than the bundle's network is for."""
    wanted, there = asdict(bundle.form), asdict(faces.form)
    rule = f"must be {{!r}}, as {bundle.directory} takes them"
    if different := [key for key in wanted if wanted[key] != there[key]]:
        raise InvalidInput([problem(source, key, rule.format(wanted[key]), there[key]) for key in different])


def _check_unseen(first: Bundle, other: Bundle, *, split: str, faces: Faces) -> None:
    """Raise InvalidInput if the other bundle may have trained on images that the first one's split kept for judging."""
    if split == "private":
        return
    part_of_training = split == "validation" or not faces.has_official_split
    keys = ["split_seed", "validation_fraction"] if split == "validation" else []
    if part_of_training or split == "public":  # some images of PublicTest stand in Training too
        keys.append("drop_test_duplicates")
    ours, theirs = ({key: getattr(bundle.recipe, key) for key in keys} for bundle in (first, other))
    if part_of_training:
        ours["fingerprint"], theirs["fingerprint"] = first.data["fingerprint"], other.data["fingerprint"]
    rule = f"must be {{!r}}, as in {first.directory}, or it may have trained on these {split} images"
    if different := [key for key in ours if ours[key] != theirs[key]]:
        raise InvalidInput([problem(other.directory, key, rule.format(ours[key]), theirs[key]) for key in different])
