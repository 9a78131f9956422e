"""Soups and ensembles of finished trainings, judged by their weights and logits on disk, put together by hand."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import numpy as np
import onnxruntime
import pytest
import torch
from huggingface_hub import ModelCard
from mlflow import MlflowClient
from safetensors.torch import load_file, save_file
from scipy.special import log_softmax, softmax
from sklearn.metrics import accuracy_score, log_loss

from fer_search import load_model
from fer_search.assessment import evaluate
from fer_search.candidates import read_candidates
from fer_search.combination import export_combination
from fer_search.data.fer2013_csv import write_csv
from fer_search.data.splits import read_ledger
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput, NotBetter
from fer_search.predict import Predictor, read_manifest
from fer_search.record import describe_data, split_for
from fer_search.runs import LOGITS, RESULT, SETTINGS, write_json
from fer_search.tracking import Tracker
from fer_search.training.measurement import measure_training
from fer_search.training.model import build_model
from fer_search.training.run import WEIGHTS
from fer_search.training.views import VIEWS

NAMES = ("one", "opposite", "astray", "apart")


@pytest.fixture(scope="module")
def data():
    return synthesize(400, seed=6)


@pytest.fixture(scope="module")
def recipe(small):
    return small.replace({"backbone": "test_resnet", "drop_path": 0.0, "dropout": 0.0, "weights_seed": 7, "seed": 1})


@pytest.fixture(scope="module")
def runs(tmp_path_factory, with_stores, data, recipe, knowing, misled):
    """Trainings as `train` leaves them: three that began at the same weights, and two that did not.

    Between `one` and `opposite` lies a network that knows the images of search-validation.
    """
    runs = with_stores(tmp_path_factory.mktemp("combination").resolve() / "runs")
    write_csv(data, runs / "faces.csv")
    splits = split_for(data, recipe)
    apart = recipe.replace({"weights_seed": 0, "seed": 5})
    state, other = (knowing(each, splits.fit, splits.validation) for each in (recipe, apart))
    made = {
        "one": (recipe, misled(state, seed=1, scale=1.2)),
        "opposite": (recipe.replace({"seed": 2}), misled(state, seed=1, scale=-1.2)),
        "astray": (recipe.replace({"seed": 3}), misled(state, seed=2, scale=60)),
        "apart": (apart, misled(other, seed=3, scale=1.2)),
        "twin": (apart.replace({"max_lr": 0.02}), misled(other, seed=3, scale=1.2)),
    }
    for name, (each, weights) in made.items():
        (runs / name).mkdir()
        settings = {"kind": "train", "search_id": name, "tracking_uri": f"sqlite:///{runs}/mlflow.db", "tags": {}}
        write_json(runs / name / SETTINGS, settings)
        choice = {"epoch": 2, "kind": "raw", "val_accuracy": 0.5}
        save_file(weights, runs / name / WEIGHTS, {"choice": json.dumps(choice)})
        network = build_model(each)
        network.load_state_dict(weights)
        prediction, metrics, logits = measure_training(network.eval(), splits)
        with (runs / name / LOGITS).open("wb") as file:
            np.savez(file, **{f"{s}/{views}": v for s, by_views in logits.items() for views, v in by_views.items()})
        result = {
            "recipe": each.model_dump(), "chosen": choice, "prediction": asdict(prediction), "metrics": metrics,
            "data": describe_data(str(runs / "faces.csv"), data, splits),
        }  # fmt: skip
        write_json(runs / name / RESULT, result)
    return runs


@pytest.fixture(scope="module")
def soup(runs):
    export_combination("soup", NAMES, runs / "soup", runs=runs)
    return runs / "soup"


@pytest.fixture(scope="module")
def ensemble(runs):
    export_combination("ensemble", NAMES, runs / "ensemble", runs=runs)
    return runs / "ensemble"


@pytest.fixture
def copies(runs, tmp_path):
    """The trainings, to be damaged."""
    for name in NAMES:
        shutil.copytree(runs / name, tmp_path / "runs" / name)
    return tmp_path / "runs"


def result_of(runs, name):
    return json.loads((runs / name / RESULT).read_text())


def changed(runs, name, change):
    result = result_of(runs, name)
    change(result)
    (runs / name / RESULT).write_text(json.dumps(result))


def probabilities_on_disk(runs, split):
    """Return each training's probabilities without views, at its temperature."""
    found = {}
    for name in NAMES:
        temperature = result_of(runs, name)["prediction"]["temperature"]["plain"]
        found[name] = softmax(np.load(runs / name / LOGITS)[f"{split}/plain"].astype(float) / temperature, axis=1)
    return found


def best_alone(runs, names=NAMES):
    def merit(name):
        prediction = result_of(runs, name)["prediction"]
        return prediction["val_accuracy"][prediction["views"]], -prediction["val_nll"][prediction["views"]]

    return max(names, key=merit)


def test_a_soup_holds_the_mean_of_the_weights_that_do_each_other_good(soup, runs, recipe):
    manifest = read_manifest(soup)
    assert manifest["kind"] == "soup"
    kept = {step["added"]: step["kept"] for step in manifest["selection"]["trail"]}
    assert kept == {"one": True, "opposite": True, "astray": False}  # `apart` began elsewhere
    weights = load_file(soup / "model.safetensors")
    one, opposite = (load_file(runs / name / WEIGHTS) for name in ("one", "opposite"))
    parameters = [name for name, _ in build_model(recipe).named_parameters()]
    assert len(parameters) > 10
    for name in parameters:
        torch.testing.assert_close(weights[name], (one[name] + opposite[name]) / 2, rtol=0, atol=1e-6)
    assert [part["name"] for part in manifest["selection"]["parts"]] == [
        step["added"] for step in manifest["selection"]["trail"] if step["kept"]
    ]


def test_the_figures_of_a_soup_are_those_of_its_weights_and_its_onnx_file(soup, runs, data, recipe):
    manifest, public = read_manifest(soup), split_for(data, recipe).public
    figures = manifest["metrics"]["public"]
    network = build_model(recipe)
    network.load_state_dict(load_file(soup / "model.safetensors"))
    with torch.no_grad():
        logits = network.eval()(torch.tensor(public.pixels[:, None] / 255, dtype=torch.float32))
    assert figures["plain"]["accuracy"] == accuracy_score(public.labels, logits.argmax(1))
    views = manifest["prediction"]["views"]
    predicted = Predictor(soup).predict(public.pixels).argmax(1)
    assert figures[views]["accuracy"] == pytest.approx(accuracy_score(public.labels, predicted), abs=0.03)
    assert evaluate(soup, split="public", runs=runs)[views]["accuracy"] == figures[views]["accuracy"]


def test_an_ensemble_is_what_greedy_selection_by_the_logits_on_disk_gives(ensemble, runs, data, recipe):
    on_disk, labels = probabilities_on_disk(runs, "validation"), split_for(data, recipe).validation.labels

    def nll(names):
        return log_loss(labels, np.mean([on_disk[name] for name in names], axis=0), labels=range(7))

    chosen = []
    while len(chosen) < 20:
        name = min(NAMES, key=lambda each: nll([*chosen, each]))
        if chosen and nll([*chosen, name]) >= nll(chosen):
            break
        chosen.append(name)
    selection = read_manifest(ensemble)["selection"]
    assert [step["added"] for step in selection["trail"]] == chosen
    assert selection["trail"][-1]["val_nll"] == pytest.approx(nll(chosen))
    parts = {part["name"]: part for part in selection["parts"]}
    assert {name: part["count"] for name, part in parts.items()} == {name: chosen.count(name) for name in {*chosen}}
    classes = {name: on_disk[name].argmax(1) for name in parts}
    for name, part in parts.items():
        others = [(classes[name] != classes[other]).mean() for other in parts if other != name]
        assert part["disagreement"] == pytest.approx(np.mean(others))


@pytest.mark.parametrize("split", ["validation", "public"])
def test_the_figures_of_an_ensemble_are_those_of_its_members_logits_put_together(ensemble, runs, data, recipe, split):
    on_disk, labels = probabilities_on_disk(runs, split), getattr(split_for(data, recipe), split).labels
    manifest = read_manifest(ensemble)
    counts = {part["name"]: part["count"] for part in manifest["selection"]["parts"]}
    mean = sum(count * on_disk[name] for name, count in counts.items()) / sum(counts.values())
    temperature = manifest["prediction"]["temperature"]["plain"]
    calibrated = softmax(np.log(mean) / temperature, axis=1)
    found = evaluate(ensemble, split=split, runs=runs)
    for figures in (manifest["metrics"][split]["plain"], found["plain"]):
        assert figures["accuracy"] == accuracy_score(labels, mean.argmax(1))
        assert figures["calibrated"]["nll"] == pytest.approx(log_loss(labels, calibrated, labels=range(7)), rel=1e-4)


def test_the_onnx_file_of_an_ensemble_asks_all_members_in_the_chosen_views(ensemble, data):
    manifest = read_manifest(ensemble)
    model, output, counts = load_model(ensemble), manifest["output"], [each["count"] for each in manifest["members"]]
    images = torch.tensor(data.pixels[:30, None] / 255, dtype=torch.float32)
    with torch.no_grad():
        shown = [VIEWS[view](images) for view in output["views"]]
        means = np.mean(
            [
                np.average(
                    [
                        softmax(network(view).double().numpy() / each["temperature"], axis=1)
                        for network, each in zip(model.network.members, manifest["members"], strict=True)
                    ],
                    axis=0,
                    weights=counts,
                )
                for view in shown
            ],
            axis=0,
        )
        expected = log_softmax(np.log(means) / output["temperature"], axis=1)
        ours = model(images).log_softmax(1).numpy()
    (logits,) = onnxruntime.InferenceSession(ensemble / "model.onnx").run(None, {"images": images.numpy()})
    np.testing.assert_allclose(log_softmax(logits, axis=1), expected, atol=1e-4)
    np.testing.assert_allclose(ours, expected, atol=1e-4)


@pytest.mark.parametrize("kind", ["soup", "ensemble"])
def test_both_are_compared_with_the_best_training_alone_on_search_validation(kind, soup, ensemble, runs, data, recipe):
    bundle, labels = {"soup": soup, "ensemble": ensemble}[kind], split_for(data, recipe).validation.labels
    manifest, best = read_manifest(bundle), best_alone(runs)
    selection, views = manifest["selection"], result_of(runs, best)["prediction"]["views"]
    assert (selection["best_alone"]["name"], selection["best_alone"]["views"]) == (best, views)
    right = np.load(runs / best / LOGITS)[f"validation/{views}"].argmax(1) == labels
    together = manifest["prediction"]["val_accuracy"][manifest["prediction"]["views"]]
    assert selection["paired"]["accuracy_difference"]["value"] == pytest.approx(together - right.mean())
    assert selection["paired"]["num_images"] == len(labels)


def test_they_are_measured_against_each_other_and_the_ledger_names_all_recipes(soup, ensemble, runs, tmp_path):
    assert evaluate(ensemble, split="validation", against=soup, runs=tmp_path)["paired"]["num_images"] > 0
    evaluate(ensemble, split="private", against=soup, runs=tmp_path)
    (entry,) = read_ledger(tmp_path / "private_test_ledger.jsonl")
    for part in read_manifest(ensemble)["selection"]["parts"]:
        assert part["recipe_digest"] in entry["purpose"]


@pytest.mark.parametrize("kind", ["soup", "ensemble"])
def test_the_card_says_what_is_in_it_and_which_figure_to_believe(kind, soup, ensemble):
    bundle = {"soup": soup, "ensemble": ensemble}[kind]
    card, manifest = ModelCard.load(bundle / "MODEL_CARD.md"), read_manifest(bundle)
    for part in manifest["selection"]["parts"]:
        assert f"| {part['name']} | {part['seed']} | `{part['recipe_digest']}` |" in card.text
    assert f"exact McNemar p = {manifest['selection']['paired']['mcnemar_p']:.2g}" in card.text
    assert "believe PublicTest" in card.text
    assert ("load_file" in card.text) == (kind == "soup")  # an ensemble has no one backbone for timm


@pytest.mark.parametrize("change", ["damaged", "missing", "not vouched for"])
def test_an_ensemble_with_a_damaged_member_is_refused(ensemble, tmp_path, change):
    copy = tmp_path / "copy"
    shutil.copytree(ensemble, copy)
    if change == "not vouched for":
        manifest = json.loads((copy / "manifest.json").read_text())
        del manifest["files"]["weights_2"]
        (copy / "manifest.json").write_text(json.dumps(manifest))
        message = r"files.weights_2: must name the file 'weights_2.safetensors' of a network, got None"
    elif change == "missing":
        (copy / "weights_2.safetensors").unlink()
        message = r"weights_2.safetensors: file: must exist"
    else:
        (copy / "weights_2.safetensors").write_bytes((copy / "weights_1.safetensors").read_bytes())
        message = r"weights_2.safetensors: sha256: must be the manifest's"
    with pytest.raises(InvalidInput, match=message):
        evaluate(copy, split="public", runs=tmp_path)


def test_trainings_that_cannot_be_compared_are_refused_all_at_once(runs, copies):
    changed(copies, "opposite", lambda result: result["recipe"].update(split_seed=3, drop_test_duplicates=False))
    changed(copies, "astray", lambda result: result["data"].update(fingerprint="0" * 16))
    (copies / "apart" / LOGITS).unlink()
    (copies / "begun").mkdir()
    write_json(copies / "begun" / SETTINGS, {"kind": "train"})
    with pytest.raises(InvalidInput) as caught:
        export_combination("ensemble", [*NAMES, "begun", "one"], copies / "bundle", runs=copies)
    told = caught.value.problems
    for expected in (
        "command line: with: must be given once, and not be what is exported, got 'one'",
        "begun: training: must hold a finished training, got 'none'",
        "opposite: split_seed: must be 0, as in one, got 3",
        "opposite: drop_test_duplicates: must be True, as in one, got False",
        "astray: fingerprint: must be ",
        "apart/logits.npz: file: must be there",
    ):
        assert sum(expected in line for line in told) == 1, expected
    assert len(told) == 6
    assert not (copies / "bundle").exists()


def test_logits_of_the_same_images_in_another_order_are_refused(copies):
    arrays = dict(np.load(copies / "apart" / LOGITS))
    arrays["validation/plain"] = np.roll(arrays["validation/plain"], 1, axis=0)
    np.savez(copies / "apart" / LOGITS, **arrays)
    with pytest.raises(
        InvalidInput, match=r"apart/logits.npz: validation: must be of the images of .*, in their order"
    ):
        export_combination("ensemble", NAMES, copies / "bundle", runs=copies)


@pytest.mark.parametrize(
    ("kind", "names", "message"),
    [
        ("ensemble", ["one"], "one: candidates: must be at least two finished trainings, got 1"),
        (
            "soup",
            ["one", "apart"],
            "candidates: must be at least two finished trainings with the same network and first",
        ),
    ],
)
def test_what_is_alone_is_not_combined(runs, tmp_path, kind, names, message):
    with pytest.raises(InvalidInput, match=message):
        export_combination(kind, names, tmp_path / "bundle", runs=runs)


def test_what_a_training_adjusted_for_itself_is_left_to_the_whole(copies):
    raw, prior = np.load(copies / "one" / LOGITS)["validation/plain"], np.log(np.linspace(1, 7, 7) / 28)
    temperature = result_of(copies, "one")["prediction"]["temperature"]["plain"]
    np.savez(copies / "one" / LOGITS, **{"validation/plain": raw - temperature * 0.5 * prior})
    changed(copies, "one", lambda result: result["prediction"].update(tau=0.5, log_prior=list(prior)))
    (found,) = read_candidates(copies, ["one"])
    np.testing.assert_allclose(found.logits("plain"), raw, rtol=1e-4, atol=1e-4)


def test_nothing_is_exported_where_the_best_alone_is_not_beaten(runs, tmp_path, fer_search):
    done = fer_search("export", "apart", "--ensemble", "--with", "twin", "--runs", runs)
    assert (done.returncode, done.stdout) == (1, "")
    assert "no ensemble is exported" in done.stderr
    assert "alone is not beaten on search-validation" in done.stderr
    with pytest.raises(
        NotBetter, match=r"no soup is exported: one alone is not beaten .* no mean of weights is as good"
    ):
        export_combination("soup", ["one", "astray"], tmp_path / "bundle", runs=runs)
    assert not any(path.name.startswith("bundle") for path in [*runs.rglob("*"), *tmp_path.rglob("*")])


def test_an_ensemble_that_is_likelier_and_less_accurate_is_not_exported(copies, data, recipe):
    """Of which one candidate is always right and hardly believes it."""
    labels = split_for(data, recipe).validation.labels
    logits = 0.01 * np.eye(7)[labels]
    kept = dict(np.load(copies / "one" / LOGITS))
    np.savez(copies / "one" / LOGITS, **kept | {name: logits for name in kept if name.startswith("validation/")})

    def right(result):
        for key, value in (("val_accuracy", 1.0), ("val_nll", np.log(6 + np.exp(0.01)) - 0.01), ("temperature", 1.0)):
            result["prediction"][key] = dict.fromkeys(result["prediction"][key], value)

    changed(copies, "one", right)
    with pytest.raises(NotBetter, match=r"one alone is not beaten .* \(accuracy 100.00%, NLL 1.9\d+; accuracy"):
        export_combination("ensemble", NAMES, copies / "bundle", runs=copies)
    assert not (copies / "bundle").exists()


def test_the_command_prints_the_comparison_and_registers_a_version_that_is_not_the_champion(
    copies, fer_search, with_stores
):
    with_stores(copies)
    uri = f"sqlite:///{copies}/mlflow.db"
    settings = json.loads((copies / "one" / SETTINGS).read_text())
    (copies / "one" / SETTINGS).write_text(json.dumps({**settings, "tracking_uri": uri}))
    Tracker(uri).create_run(search_id="one", key="train", name="one", time=0.0, tags={})
    done = fer_search("export", "one", "--ensemble", "--with", "opposite", "--runs", copies)
    assert done.returncode == 0, done.stderr
    for text in (
        "ensemble, chosen",
        "disagreement",
        "second, the best alone (",
        "McNemar p =",
        "the figure to believe",
    ):
        assert text in done.stdout
    client = MlflowClient(uri)
    (version,) = client.search_model_versions("name='fer_search'")
    assert version.tags["kind"] == "ensemble"
    assert "champion" not in client.get_registered_model("fer_search").aliases
    stored = {Path(file.path).name for file in client.list_artifacts(version.run_id, "bundle_ensemble")}
    assert stored == {path.name for path in (copies / "one" / "bundle_ensemble").iterdir()}


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("--soup", "--ensemble"), "ensemble: must not be given with --soup"),
        (("--with", "apart"), "with: must be given with --soup or --ensemble, got ['apart']"),
        (("--soup", "--trial", "3"), "trial: must not be given with --soup, got 3"),
        (("--ensemble", "--with", "nothing"), "name: must be that of a search or a training there"),
    ],
)
def test_options_that_do_not_belong_together_are_refused(runs, fer_search, options, message):
    done = fer_search("export", "one", *options, "--runs", runs)
    assert (done.returncode, done.stdout) == (2, "")
    assert message in done.stderr
