"""Bundles measured on a split, alone and against each other, judged by what ONNX Runtime predicts with their files."""

import hashlib
import json
import shutil
import sys

import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from fer_search.assessment import evaluate
from fer_search.bundle import export_bundle, write_recipe
from fer_search.cli import main
from fer_search.data.faces import Faces
from fer_search.data.fer2013_csv import write_csv
from fer_search.data.splits import read_ledger
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput
from fer_search.predict import Predictor
from fer_search.recipe import Recipe
from fer_search.record import describe_data, split_for
from fer_search.runs import RESULT, write_json
from fer_search.training.measurement import measure_training
from fer_search.training.run import WEIGHTS, load_model, train_to_end
from fer_search.training.trainer import Trainer


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("assessment")


@pytest.fixture(scope="module")
def data():
    faces = synthesize(700, seed=5)
    pixels = faces.pixels.copy()
    training, public = (np.flatnonzero(faces.usage == usage) for usage in ("Training", "PublicTest"))
    pixels[public[:20]] = pixels[training[:20]]
    return Faces(pixels, faces.labels, faces.usage, faces.names)


@pytest.fixture(scope="module")
def csv(folder, data):
    write_csv(data, folder / "faces.csv")
    return folder / "faces.csv"


@pytest.fixture(scope="module")
def make_bundle(folder, csv, data, small):
    """Train and export a bundle as `train` and `export` do, without a tracking store."""
    from dataclasses import asdict

    def make(name, **changes):
        recipe, directory = small.replace({"epochs": 1, "fit_fraction": 0.5, **changes}), folder / name
        splits = split_for(data, recipe)
        choice = train_to_end(Trainer(recipe, splits.fit, splits.validation, device=torch.device("cpu")), directory)
        prediction, metrics, _ = measure_training(load_model(recipe, directory / WEIGHTS), splits)
        result = {
            "recipe": recipe.model_dump(),
            "chosen": asdict(choice),
            "prediction": asdict(prediction),
            "data": describe_data(str(csv), data, splits),
            "metrics": metrics,
        }
        write_json(directory / RESULT, result)
        export_bundle(directory, directory / "bundle")
        return directory / "bundle"

    return make


@pytest.fixture(scope="module")
def first(make_bundle):
    return make_bundle("first")


@pytest.fixture(scope="module")
def second(make_bundle):
    return make_bundle("second", seed=1, max_lr=0.01)


@pytest.fixture
def retouched(tmp_path):
    """Return a function that copies a bundle and changes its recipe and its manifest, checksums included."""

    def retouch(bundle, *, recipe=None, manifest=None):
        copy = tmp_path / "retouched"
        shutil.copytree(bundle, copy)
        if recipe:
            write_recipe(Recipe.read(bundle / "winner.toml").replace(recipe), copy / "winner.toml")
        values = json.loads((bundle / "manifest.json").read_text())
        values["files"]["recipe"]["sha256"] = hashlib.sha256((copy / "winner.toml").read_bytes()).hexdigest()
        (manifest or (lambda values: None))(values)
        (copy / "manifest.json").write_text(json.dumps(values))
        return copy

    return retouch


def images_of(split, faces, recipe):
    splits = split_for(faces, recipe)
    return {
        "validation": splits.validation,
        "public": splits.public,
        "public_unique": splits.public.take(splits.public_unique),
        "private": faces.where("PrivateTest"),
    }[split]


@pytest.mark.parametrize("split", ["validation", "public", "public_unique", "private"])
def test_the_figures_of_a_bundle_are_those_of_its_onnx_file(first, data, split, tmp_path):
    result = evaluate(first, split=split, runs=tmp_path)
    faces = images_of(split, data, Recipe.read(first / "winner.toml"))
    probabilities = Predictor(first).predict(faces.pixels)
    figures = result[result["views"]]
    assert figures["num_images"] == len(faces)
    assert figures["accuracy"] == pytest.approx(accuracy_score(faces.labels, probabilities.argmax(1)), abs=0.02)
    exact = probabilities.astype(np.float64)
    calibrated = log_loss(faces.labels, exact / exact.sum(1, keepdims=True), labels=range(7))
    assert figures["calibrated"]["nll"] == pytest.approx(calibrated, rel=1e-3)
    assert result["same_data_as_training"]
    assert (tmp_path / "private_test_ledger.jsonl").exists() == (split == "private")


def test_the_figures_are_those_of_the_training_and_the_manifest_says_what_is_inside(first, tmp_path):
    manifest = json.loads((first / "manifest.json").read_text())
    for split, by_views in manifest["metrics"].items():
        result = evaluate(first, split=split, runs=tmp_path)
        for views, figures in by_views.items():
            assert result[views]["confusion"] == figures["confusion"]
            assert result[views]["calibrated"] == pytest.approx(figures["calibrated"], rel=1e-4)
    assert set(manifest["metrics"]) == {"validation", "public", "public_unique"}
    views, output = manifest["prediction"]["views"], manifest["output"]
    assert len(output["views"]) == {"plain": 1, "tta": 5}[views]
    assert output["temperature"] == manifest["prediction"]["temperature"][views]


@pytest.fixture(scope="module")
def compared(first, second, folder):
    return evaluate(first, split="public", against=second, runs=folder)


def test_two_bundles_are_compared_on_the_same_images(first, second, data, compared):
    public = data.where("PublicTest")
    ours, theirs = (Predictor(bundle).predict(public.pixels).argmax(1) for bundle in (first, second))
    assert (ours != theirs).any()
    paired = compared["paired"]
    one, other = ours == public.labels, theirs == public.labels
    assert (paired["only_first_correct"], paired["only_second_correct"]) == ((one & ~other).sum(), (other & ~one).sum())
    assert paired["accuracy_difference"]["value"] == pytest.approx(one.mean() - other.mean())
    f1 = [f1_score(public.labels, each, labels=range(7), average="macro", zero_division=0) for each in (ours, theirs)]
    assert paired["macro_f1_difference"]["value"] == pytest.approx(f1[0] - f1[1])
    against = compared["against"]
    assert against["bundle"] == str(second)
    assert against[against["views"]]["accuracy"] == pytest.approx(other.mean())


def test_the_command_line_prints_both_bundles_and_the_paired_test(first, second, compared, folder, monkeypatch, capsys):
    arguments = ["fer-search", "evaluate", str(first), "--against", str(second), "--runs", str(folder)]
    monkeypatch.setattr(sys, "argv", [*arguments, "--json"])
    with pytest.raises(SystemExit) as stop:
        main()
    assert not stop.value.code
    assert json.loads(capsys.readouterr().out) == compared
    monkeypatch.setattr(sys, "argv", arguments)
    with pytest.raises(SystemExit):
        main()
    shown = capsys.readouterr().out
    for text in ("plain", "tta", "macro-F1", "exact McNemar p =", "95 % interval", "prec."):
        assert text in shown


@pytest.mark.parametrize(
    ("key", "value"), [("split_seed", 1), ("validation_fraction", 0.2), ("drop_test_duplicates", False)]
)
def test_a_bundle_of_another_split_is_not_judged_on_validation_images(first, second, retouched, tmp_path, key, value):
    other = retouched(second, recipe={key: value})
    with pytest.raises(InvalidInput, match=rf"{key}: must be .* it may have trained on these .*, got {value}"):
        evaluate(first, split="validation", against=other, runs=tmp_path)
    assert evaluate(first, split="public_unique", against=other, runs=tmp_path)["paired"]["num_images"] > 0


def test_a_bundle_that_kept_copies_of_public_images_is_not_judged_on_them(first, second, retouched, tmp_path):
    other = retouched(second, recipe={"drop_test_duplicates": False})
    for ours, theirs in ((first, other), (other, first)):
        with pytest.raises(InvalidInput, match=r"drop_test_duplicates: must be .* these public images"):
            evaluate(ours, split="public", against=theirs, runs=tmp_path)


def test_a_bundle_of_the_same_split_is_judged_on_validation_images(first, second, tmp_path):
    assert evaluate(first, split="validation", against=second, runs=tmp_path)["split"] == "validation"


def test_a_bundle_of_other_data_is_not_judged_on_validation_images(first, second, retouched, tmp_path):
    other = retouched(second, manifest=lambda values: values["data"].update(fingerprint="0" * 16))
    with pytest.raises(InvalidInput, match="fingerprint: must be "):
        evaluate(first, split="validation", against=other, runs=tmp_path)
    assert not evaluate(first, split="public", against=other, runs=tmp_path)["against"]["same_data_as_training"]


@pytest.mark.parametrize("split", ["public", "public_unique"])
def test_where_public_is_a_part_of_training_both_must_have_left_it_out(first, second, data, retouched, tmp_path, split):
    write_csv(data.where("Training"), tmp_path / "training.csv")
    source = str(tmp_path / "training.csv")
    with pytest.raises(InvalidInput, match="drop_test_duplicates: must be True"):
        evaluate(
            first,
            data=source,
            split=split,
            against=retouched(second, recipe={"drop_test_duplicates": False}),
            runs=tmp_path,
        )
    assert evaluate(first, data=source, split=split, against=second, runs=tmp_path)["paired"]["num_images"] > 0


def test_one_look_at_the_private_images_for_both_is_one_line_that_names_both(first, second, tmp_path):
    evaluate(first, split="private", against=second, runs=tmp_path)
    (entry,) = read_ledger(tmp_path / "private_test_ledger.jsonl")
    for bundle in (first, second):
        assert Recipe.read(bundle / "winner.toml").digest() in entry["purpose"]


def test_a_second_look_at_the_private_images_is_refused_whatever_bundle_asks_and_its_reason_is_kept(
    first, second, tmp_path, fer_search
):
    arguments = ("--split", "private", "--runs", tmp_path)
    assert fer_search("evaluate", first, *arguments).returncode == 0
    refused = fer_search("evaluate", second, *arguments)
    assert (refused.returncode, refused.stdout) == (2, "")
    assert "private: must not be read once more" in refused.stderr
    assert Recipe.read(first / "winner.toml").digest() in refused.stderr
    assert fer_search("evaluate", second, *arguments, "--again", "the first was overfitted").returncode == 0
    entries = read_ledger(tmp_path / "private_test_ledger.jsonl")
    assert [(each["earlier_readings"], each["again"]) for each in entries] == [
        (0, None),
        (1, "the first was overfitted"),
    ]
    with pytest.raises(InvalidInput, match="again: must be given with --split private alone, got 'why'"):
        evaluate(first, split="public", again="why", runs=tmp_path)


def test_a_bad_other_bundle_costs_no_look_at_the_private_images(first, tmp_path):
    with pytest.raises(InvalidInput, match="bundle: must be a directory that export wrote"):
        evaluate(first, split="private", against=tmp_path / "nothing", runs=tmp_path)
    assert read_ledger(tmp_path / "private_test_ledger.jsonl") == []


def test_a_bundle_that_does_not_say_how_it_predicts_is_refused(first, retouched, tmp_path):
    old = retouched(first, manifest=lambda values: values.pop("prediction"))
    with pytest.raises(InvalidInput, match=r"manifest\.json: prediction: must be there"):
        evaluate(old, split="public", runs=tmp_path)
