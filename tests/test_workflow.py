"""The whole path on real parts: the tutorial's own commands, as `make demo` runs them, then what they left."""

import csv
import io
import itertools
import json
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import onnxruntime
import optuna
import pytest
import timm
import torch
from mlflow import MlflowClient
from safetensors.torch import load_file
from scipy.special import softmax

from fer_search import workflow
from fer_search.assessment import evaluate
from fer_search.checkpoints import CHECKPOINTS
from fer_search.data.splits import read_ledger
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import read_journal, reproducible
from fer_search.pictures import find_pictures
from fer_search.predict import Predictor, predict_pictures
from fer_search.recipe import Recipe
from fer_search.runs import locked
from fer_search.sync import sync
from fer_search.tracking_uri import local_store
from fer_search.training.run import read_choice, train_to_end
from fer_search.training.trainer import Trainer
from fer_search.training.views import VIEWS
from fer_search.trainings import train

DEMO = Path(__file__).with_name("demo.py")


@pytest.fixture(scope="module")
def runs(tmp_path_factory, with_stores):
    """The tutorial with five short trials."""
    runs = with_stores(tmp_path_factory.mktemp("demo") / "runs")
    command = [sys.executable, str(DEMO), "--runs", str(runs), "--name", "demo", "--quick"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580)
    assert done.returncode == 0, done.stderr
    (runs / "stdout.txt").write_text(done.stdout)
    return runs


@pytest.fixture(scope="module")
def bundle(runs):
    return runs / "demo" / "bundle"


def test_the_tutorial_shows_a_leaderboard_figures_and_where_to_look_next(runs):
    shown = (runs / "stdout.txt").read_text()
    for text in (
        "5 of 5 trials",
        "vs 0*",
        "seeds",
        "search-validation",
        "PublicTest",
        "registered in MLflow",
        "fer-search ui",
    ):
        assert text in shown


def test_the_search_stopped_some_trials_early_and_none_is_left_running(runs):
    trials = read_journal(runs / "demo" / JOURNAL)
    assert len(trials) == 5
    assert {trial.state for trial in trials} == {"COMPLETE", "PRUNED"}
    defaults = Recipe().model_dump()
    assert trials[0].parameters["max_lr"] == defaults["max_lr"]


def test_the_leaderboard_is_selected_sorted_and_written_as_csv(runs, fer_search):
    where = ("compare", "demo", "--runs", runs, "--where", "state = COMPLETE", "--sort=-max_lr")
    done = fer_search(*where, "--csv")
    found = list(csv.DictReader(io.StringIO(done.stdout)))
    trials = [trial for trial in read_journal(runs / "demo" / JOURNAL) if trial.state == "COMPLETE"]
    trials.sort(key=lambda trial: -trial.parameters["max_lr"])
    assert [(int(row["trial"]), float(row["sam_rho"])) for row in found] == [
        (trial.number, trial.parameters["sam_rho"]) for trial in trials
    ]
    shown = json.loads(fer_search(*where, "--limit", 1, "--json").stdout)
    assert [row["trial"] for row in shown["trials"]] == [trials[0].number]
    assert "1 of 5 trials" in fer_search(*where, "--limit", 1).stdout
    refused = fer_search(*where, "--csv", "--json")
    assert (refused.returncode, "csv: must not be given with --json" in refused.stderr) == (2, True)


def test_mlflow_holds_one_parent_a_child_per_trial_and_every_epoch_once(runs):
    client = MlflowClient(local_store(runs))
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], max_results=1000)
    assert {run.info.status for run in found} <= {"FINISHED", "KILLED"}
    parents = [run for run in found if run.data.tags["kind"] == "search"]
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parents[0].info.run_id]
    others = [run.data.tags["kind"] for run in found if run not in children and "race_of" not in run.data.tags]
    assert (len(children), {run.data.tags["kind"] for run in children}) == (5, {"trial"})
    assert sorted(others) == ["retrain", "search"]
    by_name = {run.info.run_name: run for run in children}
    for trial in read_journal(runs / "demo" / JOURNAL):
        run = by_name[f"trial {trial.number:05d}"]
        assert run.info.status == {"COMPLETE": "FINISHED", "PRUNED": "KILLED"}[trial.state]
        assert run.data.params == {key: str(value) for key, value in trial.parameters.items()}
        assert run.data.tags["recipe_digest"] == Recipe.build(trial.parameters).digest()
        assert {"system/cpu_utilization_percentage", "system/system_memory_usage_megabytes"} < trial.epochs[0].keys()
        for name in trial.epochs[0]:
            history = client.get_metric_history(run.info.run_id, name)
            assert [(m.step, m.value) for m in history] == [
                (epoch, metrics[name]) for epoch, metrics in enumerate(trial.epochs, start=1)
            ]
    assert len(client.search_model_versions("name='fer_search'")) == 1
    (retraining,) = [run for run in found if run.data.tags["kind"] == "retrain"]
    assert "bundle/MODEL_CARD.md" in [file.path for file in client.list_artifacts(retraining.info.run_id, "bundle")]


def test_optuna_holds_the_search_as_a_study_and_no_other_training(runs):
    url = f"sqlite:///{runs / 'optuna.db'}"
    assert optuna.get_all_study_names(url) == ["demo"]
    trials = optuna.load_study(study_name="demo", storage=url).trials
    for trial, record in zip(trials, read_journal(runs / "demo" / JOURNAL), strict=True):
        assert (trial.number, trial.state.name, trial.params) == (record.number, record.state, record.point)
        curve = {epoch: metrics["val_accuracy"] for epoch, metrics in enumerate(record.epochs, start=1)}
        assert (trial.intermediate_values, trial.value) == (curve, record.last("val_accuracy"))
        message = {"message": record.message} if record.message else {}
        assert trial.user_attrs == {"recipe_digest": Recipe.build(record.parameters).digest(), **message}


def test_the_bundles_onnx_is_a_timm_network_with_its_weights_asked_in_the_chosen_views(bundle):
    recipe, output = Recipe.read(bundle / "winner.toml"), json.loads((bundle / "manifest.json").read_text())["output"]
    network = timm.create_model(recipe.backbone, in_chans=1, num_classes=7)
    network.get_submodule(network.pretrained_cfg["first_conv"]).stride = (recipe.stem_stride, recipe.stem_stride)
    state = load_file(bundle / "model.safetensors")
    head = network.pretrained_cfg["classifier"]
    network.load_state_dict(
        {
            name.removeprefix("backbone.network.").replace("classifier.", f"{head}.", int(name.startswith("c"))): value
            for name, value in state.items()
        }
    )
    mean, std = (np.mean(network.pretrained_cfg[key]) for key in ("mean", "std"))
    pixels = synthesize(50, seed=9).pixels
    images = pixels[:, None].astype(np.float32) / 255
    with torch.no_grad():
        views = [VIEWS[name](torch.tensor(images)) for name in output["views"]]
        each = torch.stack([network.eval()(((view - mean) / std).float()) for view in views])
    powers = softmax(each.double().numpy(), axis=2).mean(0) ** (1 / output["temperature"])
    expected = powers / powers.sum(1, keepdims=True)
    session = onnxruntime.InferenceSession(bundle / "model.onnx")
    (logits,) = session.run(None, {"images": images})
    np.testing.assert_allclose(softmax(logits, axis=1), expected, atol=1e-4)
    np.testing.assert_allclose(Predictor(bundle).predict(pixels), expected, atol=1e-4)


def test_the_bundles_figures_are_those_of_its_own_weights(runs, bundle):
    manifest = json.loads((bundle / "manifest.json").read_text())
    result = evaluate(bundle, data="synthetic", split="public", runs=runs)
    for views, figures in manifest["metrics"]["public"].items():
        assert result[views]["accuracy"] == figures["accuracy"]
    public = synthesize().where("PublicTest")
    predicted = Predictor(bundle).predict(public.pixels).argmax(1)
    accuracy = result[result["views"]]["accuracy"]
    assert accuracy == pytest.approx((predicted == public.labels).mean(), abs=0.004)
    assert manifest["data"]["fingerprint"] == synthesize().fingerprint()


def test_the_result_says_what_search_validation_chose_and_how_much_the_augmentation_leaks(runs):
    result = json.loads((runs / "demo/retrain/result.json").read_text())
    validation, prediction = result["metrics"]["validation"], result["prediction"]
    assert prediction["val_accuracy"] == {views: validation[views]["accuracy"] for views in ("plain", "tta")}
    assert prediction["val_accuracy"][prediction["views"]] == max(prediction["val_accuracy"].values())
    assert result["chosen"]["val_accuracy"] == pytest.approx(validation["plain"]["accuracy"])
    assert set(result["metrics"]) == {"validation", "public", "public_unique"}
    probe, recipe = result["leak_probe"], result["recipe"]  # which trial wins hangs on timing, and so does its recipe
    assert (probe is None) == (recipe["randaugment_magnitude"] == 0)
    assert probe is None or probe["chance"] == pytest.approx(1 / 7)


def test_where_every_emotion_is_augmented_alike_nothing_is_probed(small, tmp_path, with_stores):
    recipe = small.replace(
        {"epochs": 1, "randaugment_probability_fear": 0.8, "randaugment_probability_sad": 0.8, "fit_fraction": 0.1}
    )
    assert train(recipe, name="alike", runs=with_stores(tmp_path))["leak_probe"] is None


def test_a_look_at_the_private_test_is_on_record(runs, bundle):
    ledger = runs / "private_test_ledger.jsonl"
    assert not ledger.exists(), "nothing but the explicit command may read PrivateTest"
    evaluate(bundle, data="synthetic", split="private", runs=runs)
    with pytest.raises(InvalidInput, match="private: must not be read once more"):
        evaluate(bundle, data="synthetic", split="private", runs=runs)
    evaluate(bundle, data="synthetic", split="private", again="to try it", runs=runs)
    entries = read_ledger(ledger)
    assert [entry["earlier_readings"] for entry in entries] == [0, 1]
    assert Recipe.read(bundle / "winner.toml").digest() in entries[0]["purpose"]


def test_the_same_retrain_again_gives_the_result_without_training_and_another_recipe_is_refused(runs):
    first = workflow.retrain("demo", epochs=3, runs=runs)
    assert first["metrics"] == json.loads((runs / "demo/retrain/result.json").read_text())["metrics"]
    with pytest.raises(InvalidInput, match=r"epochs: must be 3, as in the training there"):
        workflow.retrain("demo", epochs=4, runs=runs)


def test_a_bundle_that_was_changed_is_refused(bundle, tmp_path):
    import shutil

    copy = tmp_path / "bundle"
    shutil.copytree(bundle, copy)
    (copy / "model.onnx").write_bytes(b"other")
    with pytest.raises(InvalidInput, match=r"model.onnx: sha256: must be the manifest's"):
        Predictor(copy)
    manifest = json.loads((bundle / "manifest.json").read_text())
    manifest["files"]["onnx"]["name"] = "../../etc/passwd"
    (copy / "manifest.json").write_text(json.dumps(manifest))
    with pytest.raises(InvalidInput, match=r"files.onnx.name: must be the name of a file beside it"):
        Predictor(copy)


def test_a_bundle_is_not_overwritten(runs):
    with pytest.raises(InvalidInput, match="bundle: must not be there yet"):
        workflow.export("demo", runs=runs)


def test_a_search_on_other_data_than_it_began_with_is_not_resumed(runs, monkeypatch):
    monkeypatch.setattr("fer_search.record.load_faces", lambda source: synthesize(100))
    with pytest.raises(InvalidInput, match="data: must have the fingerprint"):
        workflow.resume("demo", runs=runs)


def test_a_search_that_was_moved_goes_on_where_it_is(runs, cluster, tmp_path):
    import shutil

    shutil.copytree(runs / "demo", tmp_path / "demo", ignore=shutil.ignore_patterns("ray", "bundle", "retrain"))
    moved = workflow.resume("demo", runs=tmp_path)
    assert moved.complete
    assert moved.directory == tmp_path / "demo"
    assert moved.trials == workflow.read_search("demo", runs=runs).trials


def test_a_run_that_another_process_writes_to_is_left_alone(runs):
    with locked(runs / "demo"), pytest.raises(InvalidInput, match="run: must not be running in another process"):
        workflow.resume("demo", runs=runs)


def test_an_interrupted_search_is_resumed_by_its_name_in_the_working_directory(
    tmp_path, cluster, fer_search, with_stores
):
    """Ctrl-C in mid-search, then `fer-search resume`: every trial ends, and MLflow holds every epoch once."""
    with_stores(tmp_path / "runs")
    space = Path(__file__).parent.parent / "search_spaces" / "smoke.toml"
    command = [sys.executable, "-m", "fer_search", "search", str(space), "--name", "s", "--trials", "2"]
    command += ["--max-concurrent", "1", "epochs=5", "fit_fraction=0.1"]
    process = subprocess.Popen(command, cwd=tmp_path, stderr=subprocess.PIPE, text=True)
    deadline = time.monotonic() + 120
    while "epoch_ended" not in read(tmp_path / "runs/s" / JOURNAL):
        assert process.poll() is None, process.stderr.read()
        assert time.monotonic() < deadline
        time.sleep(0.05)
    process.send_signal(signal.SIGINT)
    assert process.wait(timeout=120) == 130
    assert "fer-search resume s" in process.stderr.read()
    client = MlflowClient(local_store(tmp_path / "runs"))
    assert all(run.info.status == "KILLED" for run in client.search_runs(["1"]))
    study = optuna.load_study(study_name="s", storage=f"sqlite:///{tmp_path / 'runs/optuna.db'}")
    assert "WAITING" in {trial.state.name for trial in study.trials} <= {"WAITING", "PRUNED", "COMPLETE"}
    done = fer_search("resume", "s")
    assert done.returncode == 0, done.stderr
    trials = read_journal(tmp_path / "runs/s" / JOURNAL)
    assert trials[0].state == "COMPLETE"
    assert all(trial.state in ("COMPLETE", "PRUNED") for trial in trials)
    kept = [path.relative_to(tmp_path).parts[3:] for path in (tmp_path / "runs/s" / CHECKPOINTS).glob("*/*")]
    complete = [trial.number for trial in trials if trial.state == "COMPLETE"]
    assert sorted(kept) == [(f"trial_{number:05d}", "epoch_00005") for number in complete]
    found = client.search_runs([e.experiment_id for e in client.search_experiments()])
    children = sorted((run for run in found if run.data.tags["kind"] == "trial"), key=lambda run: run.info.run_name)
    assert len(found) == len(trials) + 1
    assert all(run.info.status != "RUNNING" for run in found)
    for run, trial in zip(children, trials, strict=True):
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert [m.step for m in history] == list(range(1, len(trial.epochs) + 1))


def test_the_best_trial_races_the_first_one_on_fresh_seeds(runs, cluster):
    best = workflow.read_search("demo", runs=runs).leaderboard()[0].number
    result = workflow.race("demo", top=1, max_seeds=3, runs=runs)  # as it stands, since the tutorial ran it
    standings = result.standings
    assert result.finished
    assert {standing.trial for standing in standings} == {best, 0}
    assert not (runs / "demo" / "race" / CHECKPOINTS).exists()
    trainings = read_journal(runs / "demo" / "race" / JOURNAL)
    assert len(trainings) == 3 * len(standings)
    for standing in standings:
        own = [training for training in trainings if training.point["trial"] == standing.trial]
        assert standing.scores == tuple(training.epochs[-1]["val_accuracy"] for training in own)
        assert len({training.parameters["seed"] for training in own} - {Recipe().seed}) == 3
    assert workflow.read_search("demo", runs=runs).winner().number == standings[0].trial
    assert workflow.race("demo", top=1, max_seeds=3, runs=runs) == result
    page = (runs / "demo" / "report" / "report.html").read_text()
    in_race = [standing for standing in standings if standing.in_race]
    assert ("the winner is trial" in page, "a tie between the trials" in page) == (len(in_race) == 1, len(in_race) > 1)
    assert f"{standings[0].mean:.1%}" in page
    assert (runs / "demo" / "report" / "race.png").exists()
    with pytest.raises(InvalidInput, match="max_seeds: must be 3, as in the race there"):
        workflow.race("demo", top=1, max_seeds=4, runs=runs)
    client = MlflowClient(local_store(runs))
    found = client.search_runs([e.experiment_id for e in client.search_experiments()], "tags.race_of != ''")
    assert {run.info.status for run in found} == {"FINISHED"}
    assert sorted(run.data.tags["kind"] for run in found) == ["race"] + ["trial"] * len(trainings)


def read(path):
    return path.read_text() if path.exists() else ""


def test_a_training_that_is_killed_goes_on_to_the_same_result(small, fit, validation, tmp_path):
    recipe = small.replace({"epochs": 4})
    device = torch.device("cpu")
    expected = train_to_end(Trainer(recipe, fit, validation, device=device), tmp_path / "whole")

    class Killed(BaseException):
        pass

    trainer = Trainer(recipe, fit, validation, device=device)
    original = trainer.state_dict
    calls = itertools.count(1)

    def state_dict():
        if next(calls) == 3:  # the weights and the journal of epoch 3 are written, its checkpoint is not
            raise Killed
        return original()

    trainer.state_dict = state_dict
    with pytest.raises(Killed):
        train_to_end(trainer, tmp_path / "killed")
    assert train_to_end(Trainer(recipe, fit, validation, device=device), tmp_path / "killed") == expected

    def curve(directory):
        (record,) = read_journal(directory / JOURNAL)
        return [reproducible(metrics) for metrics in record.epochs], record.state

    assert curve(tmp_path / "killed") == curve(tmp_path / "whole")
    assert read_choice(tmp_path / "killed") == expected
    ours, theirs = (load_file(tmp_path / name / "weights.safetensors") for name in ("killed", "whole"))
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())


SERVED = """
import sys, json, pathlib
sys.modules["torch"] = sys.modules["ray"] = None
import mlflow, pandas
mlflow.set_tracking_uri(sys.argv[1])
model = mlflow.pyfunc.load_model("models:/fer_search@champion")
from fer_search import predict
images = [pathlib.Path(path).read_bytes() for path in sys.argv[2:]]
found = model.predict(pandas.DataFrame({"image": images}))
print(json.dumps({"code": predict.__file__, "found": found.to_dict("records")}))
"""


def test_the_winner_is_served_from_the_registry_by_the_code_that_is_stored_with_it_and_without_torch(runs, bundle):
    faces = sorted((runs / "demo" / "faces").glob("*.png"))
    command = [sys.executable, "-c", SERVED, local_store(runs), *map(str, faces)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, cwd=runs)
    assert done.returncode == 0, done.stderr
    answer = json.loads(done.stdout.splitlines()[-1])
    assert not Path(answer["code"]).is_relative_to(Path(workflow.__file__).parent)
    expected = predict_pictures(Predictor(bundle), find_pictures(faces), detector=None)
    assert [row.pop("emotion") for row in answer["found"]] == [each.emotion for each in expected]
    for row, each in zip(answer["found"], expected, strict=True):
        assert row == pytest.approx(each.probabilities, abs=1e-6)


def test_what_is_registered_already_is_not_registered_again(runs):
    client = MlflowClient(local_store(runs))
    before = client.get_model_version_by_alias("fer_search", "champion")
    sync("demo", runs=runs)
    (version,) = client.search_model_versions("name='fer_search'")
    assert (version.version, version.run_id) == (before.version, before.run_id)
    assert version.tags["search"] == "demo"


def test_who_was_exported_last_stays_the_champion_when_an_older_search_is_sent_again(runs):
    client = MlflowClient(local_store(runs))
    first = client.get_model_version_by_alias("fer_search", "champion")
    tags = {"bundle_sha256": "another bundle's"}
    last = client.create_model_version("fer_search", str(runs / "demo" / "bundle"), first.run_id, tags=tags).version
    client.set_registered_model_alias("fer_search", "champion", last)
    sync("demo", runs=runs)
    assert client.get_model_version_by_alias("fer_search", "champion").version == last
    client.delete_model_version("fer_search", last)
    sync("demo", runs=runs)
    assert client.get_model_version_by_alias("fer_search", "champion").version == first.version
