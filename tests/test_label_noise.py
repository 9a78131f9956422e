"""Label noise as a run: folds that go on after a kill, and soft labels that trainings, searches and pupils take."""

import csv
import itertools
import json
import shutil
from dataclasses import replace

import numpy as np
import pytest
import torch

from fer_search.cross_fitting import FOLD, label_noise
from fer_search.data.fer2013 import load_faces
from fer_search.data.fer2013_parquet import write_parquet
from fer_search.data.soft_labels import read_soft_labels, write_soft_labels
from fer_search.data.splits import fold_of
from fer_search.data.synthetic import synthesize
from fer_search.distillation import distill
from fer_search.errors import InvalidInput
from fer_search.html_report.label_noise import suspects_section
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import read_journal
from fer_search.long_trainings import training_to_export
from fer_search.predict import MANIFEST
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.runs import RESULT, SETTINGS, read_json
from fer_search.searches import prepare
from fer_search.status import read_status
from fer_search.training.calibration import log_probabilities
from fer_search.training.measurement import ViewChoice, split_logits
from fer_search.training.run import WEIGHTS, load_model
from fer_search.training.trainer import Trainer
from fer_search.trainings import train

TINY = Recipe().replace(
    {
        "backbone": "test_resnet", "pretrained": False, "stem_stride": 2, "fusion_width": 0, "drop_path": 0.0,
        "epochs": 2, "fit_fraction": 0.4, "accumulation": 1,
    }
)  # fmt: skip


def changed():
    """The fields of the recipe that have not their default."""
    return {key: value for key, value in TINY.model_dump().items() if value != Recipe.model_fields[key].default}


@pytest.fixture(scope="module")
def data(tmp_path_factory, faces):
    path = tmp_path_factory.mktemp("data") / "faces.parquet"
    write_parquet(faces, path)
    return str(path)


@pytest.fixture(scope="module")
def noise(tmp_path_factory, with_stores, data):
    """A run of two folds that was killed in its second fold's second epoch and went on: its runs, and what it found."""
    runs = with_stores(tmp_path_factory.mktemp("noise") / "runs")
    state_dict, calls = Trainer.state_dict, itertools.count(1)

    class Killed(BaseException):
        pass

    def killed_at_the_fourth(self):
        if next(calls) == 4:
            raise Killed
        return state_dict(self)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Trainer, "state_dict", killed_at_the_fourth)
        with pytest.raises(Killed):
            label_noise(TINY, name="n", folds=2, data=data, runs=runs)
    before = (runs / "n/fold_2" / JOURNAL).read_text()
    found = label_noise(TINY, name="n", folds=2, data=data, runs=runs)
    assert (runs / "n/fold_2" / JOURNAL).read_text().startswith(before)
    return runs, found


def test_each_fold_is_told_by_the_network_that_has_not_learned_from_it(noise, data):
    runs, found = noise
    splits = split_for(load_faces(data), TINY)
    assert found.fit.fingerprint() == splits.fit.fingerprint()
    fold = fold_of(splits.fit, folds=2, seed=TINY.split_seed)
    for number in range(2):
        directory = runs / "n" / f"{FOLD}_{number + 1}"
        (record,) = read_journal(directory / JOURNAL)
        assert (record.state, len(record.epochs)) == ("COMPLETE", 2)
        assert read_json(directory / SETTINGS)["data"]["num_fit"] == np.count_nonzero(fold != number)
        choice = ViewChoice(**read_json(directory / RESULT)["prediction"])
        logits = split_logits(load_model(TINY, directory / WEIGHTS), splits.fit.take(fold == number))[choice.views]
        expected = np.exp(log_probabilities(logits, choice.temperature[choice.views]))
        np.testing.assert_allclose(found.probabilities[fold == number], expected, atol=1e-5)


def test_soft_labels_suspects_page_and_figures_say_the_same(noise, capsys):
    runs, found = noise
    soft = read_soft_labels(runs / "n/soft_labels.parquet")
    np.testing.assert_array_equal(soft.attached(found.fit, source="x").soft_labels, found.probabilities)
    rows = list(csv.DictReader((runs / "n/suspects.csv").open()))
    assert [int(row["rank"]) for row in rows] == list(range(1, len(found.noise.suspects) + 1))
    image = found.noise.suspects[0]
    assert rows[0]["name"] == found.fit.names[image]
    assert rows[0]["given"] == found.fit.classes[found.fit.labels[image]]
    assert float(rows[0]["probability_of_given"]) == pytest.approx(found.probabilities[image, found.fit.labels[image]])
    figures = read_json(runs / "n" / RESULT)
    assert figures["wrong_share"] == pytest.approx(found.noise.share)
    assert (figures["num_suspects"], figures["soft_labels_digest"]) == (len(rows), soft.digest())
    page = (runs / "n/label_noise.html").read_text()
    assert f"{figures['wrong_share']:.1%} of the labels are wrong" in page
    assert "http" not in page.replace("http://www.w3.org", "")
    assert page.count('role="img"') == 2
    section = suspects_section(found.fit, found.probabilities, split="a split")  # as in the report of a search
    assert section.text.startswith(
        f"{len(rows)} of {len(found.fit)} images of a split are confidently of another class"
    )
    assert len(section.plots) == 1


def test_status_knows_the_run_and_its_folds(noise):
    runs, _ = noise
    assert [(each.directory.name, each.kind, each.state) for each in read_status(runs / "n")] == [
        ("n", "label-noise", "finished"), ("fold_1", "fold", "finished"), ("fold_2", "fold", "finished"),
    ]  # fmt: skip


def test_another_recipe_or_number_of_folds_is_refused_before_any_work(noise, data):
    runs, _ = noise
    with pytest.raises(InvalidInput, match="n: folds: must be 2, as in the run there"):
        label_noise(TINY, name="n", folds=3, data=data, runs=runs)
    with pytest.raises(InvalidInput, match="n: seed: must be 0, as in the run there"):
        label_noise(TINY.replace({"seed": 1}), name="n", folds=2, data=data, runs=runs)
    with pytest.raises(InvalidInput, match="soft_label_weight: must be 0"):
        label_noise(TINY.replace({"soft_label_weight": 0.5}), name="new", folds=2, data=data, runs=runs)
    with pytest.raises(InvalidInput, match="folds: must be at least 2"):
        label_noise(TINY, name="new", folds=1, data=data, runs=runs)
    assert not (runs / "new").exists()
    with pytest.raises(InvalidInput, match="n: kind: must be a search or a training, got 'label-noise'"):
        training_to_export(runs / "n", None)


def test_the_command_prints_the_estimates_of_a_finished_run(noise, data, fer_search):
    runs, found = noise
    words = ["label-noise", "--name", "n", "--folds", "2", "--data", data, "--runs", runs, "--quiet"]
    words += [f"{key}={json.dumps(value)}" for key, value in changed().items()]
    printed = json.loads(fer_search(*words, "--json").stdout)
    assert printed["wrong_share"] == pytest.approx(found.noise.share)
    assert printed["suspects"] == str(runs / "n/suspects.csv")
    shown = fer_search(*words).stdout
    assert f"{found.noise.share:.1%}" in shown
    assert str(runs / "n/label_noise.html") in shown


@pytest.fixture(scope="module")
def pupil(noise, data):
    """A training with soft labels, killed by nothing: its runs, its recipe and its figures."""
    runs, _ = noise
    recipe = TINY.replace({"soft_label_weight": 0.5, "epochs": 1})
    return runs, recipe, train(recipe, name="pupil", soft_labels=runs / "n/soft_labels.parquet", data=data, runs=runs)


def test_a_training_takes_them_and_records_which(pupil, data):
    runs, recipe, result = pupil
    file = runs / "n/soft_labels.parquet"
    assert result["data"]["soft_labels"] == {"source": str(file), "digest": read_soft_labels(file).digest()}
    (record,) = read_journal(runs / "pupil" / JOURNAL)
    splits = split_for(load_faces(data), recipe, soft_labels=file)
    losses = []
    for weight in (0.5, 0.0):
        settings = recipe.replace({"soft_label_weight": weight})
        (report,) = Trainer(settings, splits.fit, splits.validation, device=torch.device("cpu"))
        losses.append(report.metrics["train_loss"])
    assert record.epochs[0]["train_loss"] == pytest.approx(losses[0], rel=1e-5)
    assert abs(losses[1] - losses[0]) > 1e-3


def test_a_repeated_training_refuses_other_soft_labels_and_none(pupil, tmp_path, data):
    runs, recipe, result = pupil
    copy = shutil.copy(runs / "n/soft_labels.parquet", tmp_path / "moved.parquet")
    assert train(recipe, name="pupil", soft_labels=copy, data=data, runs=runs)["metrics"] == result["metrics"]
    soft = read_soft_labels(copy)
    write_soft_labels(replace(soft, probabilities=np.roll(soft.probabilities, 1, axis=0)), copy)
    with pytest.raises(InvalidInput, match=r"moved.parquet: soft-labels: must have the digest"):
        train(recipe, name="pupil", soft_labels=copy, data=data, runs=runs)
    with pytest.raises(InvalidInput, match="soft_label_weight: must be 0 where the images have no soft labels"):
        train(recipe, name="pupil", data=data, runs=runs)


def test_settings_without_effect_and_other_splits_are_refused(pupil, data):
    runs, recipe, _ = pupil
    file = runs / "n/soft_labels.parquet"
    with pytest.raises(InvalidInput, match="soft-labels: must not be given, since it has no effect while"):
        train(TINY, name="new", soft_labels=file, data=data, runs=runs)
    for changes in ({"split_seed": 1}, {"validation_fraction": 0.2}, {"drop_test_duplicates": False}):
        (key,) = changes
        with pytest.raises(InvalidInput, match=rf"{key}: must be .* as in the training, or they may know images"):
            train(recipe.replace(changes), name="new", soft_labels=file, data=data, runs=runs)
    with pytest.raises(InvalidInput, match="images: must hold each of"):
        train(recipe.replace({"fit_fraction": 0.8}), name="new", soft_labels=file, data=data, runs=runs)
    assert not (runs / "new").exists()


def test_a_search_takes_them_where_its_space_has_a_use_for_them(noise, tmp_path, data):
    runs, _ = noise
    file, space = runs / "n/soft_labels.parquet", tmp_path / "space.toml"
    base = "[base]\n" + "".join(f"{key} = {json.dumps(value)}\n" for key, value in changed().items())
    searched = base + "[space.soft_label_weight]\nlow = 0.0\nhigh = 1.0\n"
    rest = {"data": data, "overrides": None, "num_trials": 2}
    space.write_text(searched)
    assert prepare(space, soft_labels=file, **rest).splits.fit.soft_labels is not None
    with pytest.raises(InvalidInput, match=r"space.soft_label_weight: must not be searched without --soft-labels"):
        prepare(space, **rest)
    space.write_text(base + "[space.max_lr]\nlow = 0.001\nhigh = 0.01\n")
    with pytest.raises(InvalidInput, match="soft-labels: must not be given, since it has no effect"):
        prepare(space, soft_labels=file, **rest)
    with pytest.raises(InvalidInput, match=r"base.soft_label_weight: must be 0 without --soft-labels, got 0.5"):
        prepare(space, **{**rest, "overrides": {"soft_label_weight": 0.5}})


def test_a_pupil_learns_what_the_bundle_says_of_all_images_to_train_on(bundle, small, tmp_path):
    write_parquet(synthesize(200, seed=3), tmp_path / "faces.parquet")
    faces = load_faces(tmp_path / "faces.parquet")
    labels = distill(bundle, output=tmp_path / "soft.parquet", data=str(tmp_path / "faces.parquet"))
    fit = split_for(faces, small).fit
    choice = ViewChoice(**read_json(bundle / MANIFEST)["prediction"])
    network = choice.prediction_net(load_model(small, bundle / "model.safetensors")).eval()
    with torch.no_grad():
        expected = network(torch.tensor(fit.pixels[:, None] / 255, dtype=torch.float32)).softmax(1)
    splits = split_for(faces, small, soft_labels=tmp_path / "soft.parquet")
    np.testing.assert_allclose(splits.fit.soft_labels, expected.numpy(), atol=1e-4)
    assert splits.validation.soft_labels is None
    assert splits.public.soft_labels is None
    assert labels.made["by"] == "distill"
    with pytest.raises(InvalidInput, match="output: must not be there yet"):
        distill(bundle, output=tmp_path / "soft.parquet", data=str(tmp_path / "faces.parquet"))


def test_a_teacher_that_may_know_what_its_pupil_is_judged_on_is_refused(bundle, small, tmp_path, fer_search):
    with pytest.raises(InvalidInput, match=r"synthetic: data: must have the fingerprint .* of what .* was trained on"):
        distill(bundle, output=tmp_path / "soft.parquet")  # the bundle's 200 faces are others
    write_parquet(synthesize(200, seed=3), tmp_path / "faces.parquet")
    done = fer_search("distill", bundle, "--output", "soft.parquet", "--data", "faces.parquet")
    assert "soft labels to soft.parquet" in done.stdout
    faces = load_faces(tmp_path / "faces.parquet")
    with pytest.raises(InvalidInput, match="split_seed: must be 1"):
        split_for(faces, small.replace({"split_seed": 1}), soft_labels=tmp_path / "soft.parquet")
