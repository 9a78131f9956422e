"""Bundles measured on a split of a data set: one alone, or two on the same images with a paired test."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from torch import nn

from fer_search.bundle import file_names, role_pairs
from fer_search.data.faces import Faces, ImageForm
from fer_search.data.fer2013 import load_faces
from fer_search.data.splits import read_private_test
from fer_search.errors import InvalidInput, problem
from fer_search.files import read_toml
from fer_search.predict import MANIFEST, MemberEntry, PredictionEntry, bundle_form, read_manifest
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.runs import LEDGER, RUNS
from fer_search.training.ensemble import Member, load_members
from fer_search.training.measurement import Logits, ViewChoice, figures_of, split_logits
from fer_search.training.paired import compare
from fer_search.training.trainer import choose_device
from fer_search.training.views import VIEW_SETS

SPLITS = ("validation", "public", "public_unique", "private")


@dataclass(frozen=True)
class Bundle:
    """A bundle as it is measured: what it was trained on, and how its networks are used.

    Several members are an ensemble. All were trained on the same data, and kept the same images for judging.
    """

    directory: Path
    data: dict[str, Any]
    form: ImageForm
    members: tuple[Member, ...]
    choice: ViewChoice

    @property
    def recipe(self) -> Recipe:
        """The recipe of the first member, which is as good as any other to say what was kept for judging."""
        return self.members[0].recipe

    @property
    def digest(self) -> str:
        """What names the recipes of all members."""
        return "+".join(member.recipe.digest() for member in self.members)

    def network(self) -> nn.Module:
        """Return the trained network alone, or the ensemble, in evaluation mode on the CPU."""
        return load_members(self.members, self.form)

    def logits(self, faces: Faces) -> Logits:
        """Return the network's logits of faces for every view set."""
        return split_logits(self.network().to(choose_device()), faces)

    def record(self, fingerprint: str) -> dict[str, Any]:
        """Return what its figures on a part of the faces with this fingerprint must be read with."""
        return {
            "bundle": str(self.directory),
            "recipe_digest": self.digest,
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
    members = _read_members(directory, manifest)
    prediction = PredictionEntry.model_validate(manifest["prediction"])
    if not all(prediction.views in each for each in (VIEW_SETS, prediction.temperature)):
        rule = f"must be one of {', '.join(VIEW_SETS)}, with a temperature"
        raise InvalidInput(problem(directory / MANIFEST, "prediction.views", rule, prediction.views))
    classes = manifest["classes"]
    if prediction.tau and len(prediction.log_prior) != len(classes):
        rule = f"must have a value for each of the {len(classes)} classes, where tau is not 0"
        raise InvalidInput(problem(directory / MANIFEST, "prediction.log_prior", rule, prediction.log_prior))
    return Bundle(directory, manifest["data"], bundle_form(manifest), members, ViewChoice(**prediction.model_dump()))


def _read_members(directory: Path, manifest: dict[str, Any]) -> tuple[Member, ...]:
    """Read the recipes of a bundle's networks; raises InvalidInput for files that its manifest does not vouch for."""
    entries = [MemberEntry.model_validate(each) for each in manifest.get("members") or [{}]]
    pairs, names = role_pairs(len(entries)), file_names(len(entries))
    vouched = {role: entry["name"] for role, entry in manifest["files"].items()}
    rule = "must name the file {!r} of a network"
    missing = [role for role in names if vouched.get(role) != names[role]]
    if missing:
        source = directory / MANIFEST
        raise InvalidInput([problem(source, f"files.{r}", rule.format(names[r]), vouched.get(r)) for r in missing])
    recipes = [Recipe.stored(read_toml(directory / names[r]), source=directory / names[r]) for r, _ in pairs]
    return tuple(
        Member(recipe, directory / names[weights], entry.count, entry.temperature)
        for recipe, (_, weights), entry in zip(recipes, pairs, entries, strict=True)
    )


def evaluate(
    bundle: Path,
    *,
    data: str | None = None,
    split: str,
    against: Path | None = None,
    again: str | None = None,
    runs: Path = RUNS,
) -> dict[str, Any]:
    """Return the figures of a `bundle` on the `split` validation, public, public_unique or private of `data`.

    By default the data are those that it was trained on. The figures, under `plain` and `tta`, are those of
    training.metrics.evaluate: accuracy with its 95 % interval (Wilson, 1927), macro-F1, and more, as shares from 0 to
    1. With another bundle to compare it `against`, also that one's on the same images, and an exact McNemar test and a
    paired bootstrap. A look at private is written to the ledger in `runs` before it happens, and a second one at the
    same images with the reason why they are looked at `again`. Raises InvalidInput for a bundle, a split or data that
    are none, another kind of faces, or a second look without a reason.
    """
    if split not in SPLITS:
        raise InvalidInput(problem("command line", "split", f"must be one of {', '.join(SPLITS)}", split))
    if again is not None and split != "private":
        raise InvalidInput(problem("command line", "again", "must be given with --split private alone", again))
    first = read_bundle(bundle)
    other = None if against is None else read_bundle(against)
    faces = load_faces(data or first.data["source"])
    looked_at = [first] if other is None else [first, other]
    for each in looked_at:
        _check_form(each, faces, source=data or first.data["source"])
    _check_unseen(looked_at, split=split, faces=faces)
    chosen, label = _choose(faces, first, other, split=split, ledger=runs / LEDGER, again=again)
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


def _choose(
    faces: Faces, first: Bundle, other: Bundle | None, *, split: str, ledger: Path, again: str | None
) -> tuple[Faces, str]:
    """Return the images of the first bundle's split and what they must be called."""
    if split == "private":
        purpose = f"evaluate bundle with recipe {first.digest}"
        if other:
            purpose += f" against {other.digest}"
        private = read_private_test(faces, ledger=ledger, purpose=purpose, again=again)
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


def _check_unseen(bundles: Sequence[Bundle], *, split: str, faces: Faces) -> None:
    """Raise InvalidInput if a network may have trained on images that the first bundle's split kept for judging."""
    if split == "private":
        return
    first = bundles[0]
    part_of_training = split == "validation" or not faces.has_official_split
    keys = ["split_seed", "validation_fraction"] if split == "validation" else []
    if part_of_training or split == "public":  # some images of PublicTest stand in Training too
        keys.append("drop_test_duplicates")
    fingerprints = ["fingerprint"] if part_of_training else []
    ours = {key: getattr(first.recipe, key) for key in keys} | {key: first.data[key] for key in fingerprints}
    rule = f"must be {{!r}}, as in {first.directory}, or it may have trained on these {split} images"
    problems = [
        problem(bundle.directory, key, rule.format(ours[key]), found)
        for bundle in bundles
        for key in ours
        for found in {
            bundle.data[key] if key in fingerprints else getattr(member.recipe, key) for member in bundle.members
        }
        if found != ours[key]
    ]
    if problems:
        raise InvalidInput(problems)
