"""Long trainings of a search's trials on a search that is written by hand: no search runs here."""

import itertools
import json
import os
import subprocess
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file

from fer_search import workflow
from fer_search.cli import main
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal, read_journal, reproducible
from fer_search.long_trainings import LongTraining, best_of_seeds, seeds_summary
from fer_search.predict import Predictor, read_manifest
from fer_search.recipe import Recipe
from fer_search.record import describe_data, package_versions, split_for
from fer_search.retraining import fresh_seeds
from fer_search.runs import SETTINGS, write_json
from fer_search.spaces import check_space
from fer_search.tracking_uri import local_store
from fer_search.training.run import WEIGHTS, train_to_end
from fer_search.training.trainer import Trainer
from fer_search.trainings import training_settings
from fer_search.tuning.connection import Resources

BASE = {
    "backbone": "test_resnet", "pretrained": False, "stem_stride": 2, "fusion_width": 0, "drop_path": 0.0,
    "epochs": 3, "fit_fraction": 0.05, "accumulation": 1,
}  # fmt: skip
# The learning rates of trials, and what their searches said at the horizon; the last was stopped.
TRIALS = [(0.002, 0.5), (0.01, 0.7), (0.02, 0.6), (0.04, 0.9)]


@pytest.fixture(scope="module")
def runs(tmp_path_factory, with_stores):
    runs = with_stores(tmp_path_factory.mktemp("retraining") / "runs")
    table = {"base": BASE, "space": {"max_lr": {"low": 0.001, "high": 0.05}}, "search": {"num_trials": len(TRIALS)}}
    space = check_space(table, source=Path("space.toml"))
    faces = synthesize()
    splits = split_for(faces, Recipe.build(space.parameters))
    settings = {
        "kind": "search", "search_id": "by-hand", "space_file": "space.toml", "space": table,
        "parameters": space.parameters, "resources": asdict(Resources()), "address": None,
        "tracking_uri": local_store(runs), "data": describe_data("synthetic", faces, splits),
        "versions": package_versions(),
    }  # fmt: skip
    (runs / "s").mkdir(parents=True)
    write_json(runs / "s" / SETTINGS, settings)
    journal = Journal(runs / "s" / JOURNAL)
    for number, (max_lr, value) in enumerate(TRIALS):
        point = {"max_lr": max_lr}
        journal.trial_started(number, space.complete(point), point=point)
        last = number == len(TRIALS) - 1
        for epoch in range(1, 2 if last else 4):
            journal.epoch_ended(number, epoch, {"val_accuracy": value})
        journal.trial_ended(number, "PRUNED" if last else "COMPLETE")
    return runs


@pytest.fixture(scope="module")
def retrained(cluster, runs):
    """The winner with three seeds, after the training of the second was killed in mid-training."""
    directory = runs / "s/retrain/seed_1"
    result = workflow.read_search("s", runs=runs)
    recipe = Recipe.build({**result.trials[1].parameters, "seed": fresh_seeds(result.space.seed, 2)[1], "epochs": 4})
    faces = synthesize()
    splits = split_for(faces, recipe)
    tags = {"search": "s", "winner_of": "by-hand", "trial": "1"}
    uri = local_store(runs)
    settings = training_settings(
        recipe, directory, kind="retrain", data="synthetic", faces=faces, splits=splits, tracking_uri=uri, tags=tags
    )
    directory.mkdir(parents=True)
    write_json(directory / SETTINGS, settings)
    trainer = Trainer(recipe, splits.fit, splits.validation, device=torch.device("cpu"))
    state_dict, calls = trainer.state_dict, itertools.count(1)

    class Killed(BaseException):
        pass

    def killed_at_epoch_3():
        if next(calls) == 3:
            raise Killed
        return state_dict()

    trainer.state_dict = killed_at_epoch_3
    num_threads = torch.get_num_threads()
    torch.set_num_threads(1)  # as in a worker, which goes on with it
    with pytest.raises(Killed):
        train_to_end(trainer, directory)
    torch.set_num_threads(num_threads)
    before = (directory / JOURNAL).read_text()
    return workflow.retrain("s", epochs=4, seeds=3, runs=runs), before


def test_several_seeds_train_to_the_end_and_a_kill_costs_no_epoch_that_was_recorded(runs, retrained):
    seeds = set()
    for name in ("", "seed_1", "seed_2"):
        (record,) = read_journal(runs / "s/retrain" / name / JOURNAL)
        assert (record.state, len(record.epochs)) == ("COMPLETE", 4)
        assert record.parameters["max_lr"] == 0.01  # trial 1's, the best at the horizon
        seeds.add(record.parameters["seed"])
    assert len(seeds) == 3
    assert 0 not in seeds  # the search's own
    text = (runs / "s/retrain/seed_1" / JOURNAL).read_text()
    assert text.startswith(retrained[1])
    assert text.count("epoch_ended") == 4


def test_the_summary_is_that_of_the_seeds_own_figures(runs, retrained):
    summary = retrained[0]["seeds"]
    results = [json.loads((runs / "s/retrain" / n / "result.json").read_text()) for n in ("", "seed_1", "seed_2")]
    for split in ("validation", "public", "public_unique"):
        values = [each["metrics"][split][each["prediction"]["views"]]["accuracy"] for each in results]
        assert [each[split] for each in summary["trainings"]] == values
        assert summary["splits"][split]["mean"] == pytest.approx(np.mean(values))
        assert summary["splits"][split]["deviation"] == pytest.approx(np.std(values, ddof=1))
    validation = [each["metrics"]["validation"][each["prediction"]["views"]]["accuracy"] for each in results]
    (exported,) = [each for each in summary["trainings"] if each["exported"]]
    assert exported["validation"] == max(validation)
    assert retrained[0]["recipe"]["seed"] == exported["seed"]


@pytest.fixture(scope="module")
def bundle(runs, retrained):
    return workflow.export("s", runs=runs)[0]


def test_the_bundle_is_the_seed_that_did_best_on_search_validation_and_says_so(bundle, retrained):
    assert "MLFLOW_TRACKING_URI" not in os.environ  # or the next search, started from here, would go to this store
    manifest = read_manifest(bundle)
    (exported,) = [each for each in retrained[0]["seeds"]["trainings"] if each["exported"]]
    assert manifest["selection"]["seed"] == exported["seed"]
    assert len(manifest["selection"]["val_accuracy_of_seeds"]) == 3
    public = manifest["metrics"]["public"][manifest["prediction"]["views"]]["accuracy"]
    faces = synthesize().where("PublicTest")
    assert (Predictor(bundle).predict(faces.pixels).argmax(1) == faces.labels).mean() == pytest.approx(
        public, abs=0.004
    )


WITHOUT_RAY = """
import sys, torch
torch.set_num_threads(1)  # as each training of several seeds has had
sys.modules["ray"] = None  # so that importing it fails
from fer_search.cli import main
main()
"""


def test_the_bundles_recipe_trains_again_to_the_same_result_where_ray_is_not_installed(
    bundle, retrained, tmp_path, with_stores
):
    with_stores(tmp_path / "runs")
    command = ["train", "--recipe", str(bundle / "winner.toml"), "--name", "again", "--runs", str(tmp_path / "runs")]
    done = subprocess.run([sys.executable, "-c", WITHOUT_RAY, *command], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "runs/again/result.json").read_text())
    manifest = read_manifest(bundle)
    assert (result["metrics"], result["prediction"]) == (manifest["metrics"], manifest["prediction"])
    ours, theirs = (load_file(path) for path in (tmp_path / "runs/again" / WEIGHTS, bundle / "model.safetensors"))
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(value, theirs[name]) for name, value in ours.items())
    (again,) = read_journal(tmp_path / "runs/again" / JOURNAL)
    (exported,) = [each for each in retrained[0]["seeds"]["trainings"] if each["exported"]]
    (first,) = read_journal(Path(exported["directory"]) / JOURNAL)
    assert [reproducible(epoch) for epoch in again.epochs] == [reproducible(epoch) for epoch in first.epochs]


def test_one_configuration_is_too_few_for_rank_agreement_and_three_are_ranked(runs, retrained, caplog):
    caplog.set_level("INFO", logger="fer_search")
    assert retrained[0]["rank_agreement"]["agreement"] is None
    assert list(retrained[0]["rank_agreement"]["long"]) == [1]
    for trial in (0, 2):
        result = workflow.retrain("s", trial=trial, epochs=4, runs=runs)
        assert (runs / f"s/retrain_{trial:05d}/result.json").exists()
        assert f"s trial {trial}: trial {trial} for 4 epochs, seeds {result['recipe']['seed']}" in caplog.messages
    found = result["rank_agreement"]
    assert found["short"] == {0: 0.5, 1: 0.7, 2: 0.6}
    assert found["long"][1] == pytest.approx(retrained[0]["seeds"]["splits"]["validation"]["mean"])
    pairs = [(0, 1), (0, 2), (1, 2)]
    signs = [np.sign((found["short"][a] - found["short"][b]) * (found["long"][a] - found["long"][b])) for a, b in pairs]
    untied = sum(sign != 0 for sign in signs)
    expected = pytest.approx(sum(signs) / np.sqrt(3 * untied)) if untied else None  # tau-b
    assert (found["agreement"]["num_ranked"], found["agreement"]["tau"]) == (3, expected)


def test_the_same_command_again_gives_the_same_result_without_training(runs, retrained):
    journals = {path: path.stat().st_mtime_ns for path in (runs / "s/retrain").rglob(JOURNAL)}
    again = workflow.retrain("s", epochs=4, seeds=3, runs=runs)
    assert again["seeds"] == retrained[0]["seeds"]
    assert {path: path.stat().st_mtime_ns for path in journals} == journals


def test_a_training_with_other_settings_than_the_trials_does_not_count(runs, retrained):
    before = workflow.read_search("s", runs=runs).rank_agreement()
    path = runs / "s/retrain/seed_1/result.json"
    text = path.read_text()
    changed = json.loads(text)
    changed["recipe"]["dropout"] = 0.31
    try:
        path.write_text(json.dumps(changed))
        after = workflow.read_search("s", runs=runs).rank_agreement()
    finally:
        path.write_text(text)
    values = [each["validation"] for each in retrained[0]["seeds"]["trainings"]]
    assert before.long[1] == pytest.approx(np.mean(values))
    assert after.long[1] == pytest.approx((values[0] + values[2]) / 2)


def test_compare_shows_the_front_and_the_rank_agreement_to_people_and_to_scripts(runs, retrained, monkeypatch, capsys):
    def compare(*arguments):
        monkeypatch.setattr(sys, "argv", ["fer-search", "compare", "s", "--runs", str(runs), *arguments])
        with pytest.raises(SystemExit) as ended:
            main()
        assert ended.value.code == 0
        return capsys.readouterr().out

    shown = compare("--cost", "flops")
    assert "MFLOPs" in shown
    assert "fer-search retrain s --trial N" in shown
    assert "trained long" in shown or "rank agreement" in shown
    found = json.loads(compare("--cost", "parameters", "--json"))
    # One network, so that the most accurate of those at the horizon is the front; the stopped one is not compared.
    assert [(each["trial"], each["on_front"]) for each in found["tradeoffs"]] == [(1, True), (2, False), (0, False)]
    assert found["rank_agreement"]["epochs"] == 4
    assert "tradeoffs" not in json.loads(compare("--json"))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"trial": 3}, "trial: must be one that reached the last epoch, got 'trial 3, PRUNED'"),
        ({"trial": 9}, "trial: must be one that reached the last epoch, got 'no trial 9'"),
        (
            {"seeds": 2, "overrides": {"seed": 4}},
            "seed: must not be given beside --seeds, .* got 4",
        ),
        ({"seeds": 0}, "seeds: must be at least 1, got 0"),
        ({"seeds": 2, "epochs": 5}, "epochs: must be 4, as in the training there"),
        ({"seeds": 2, "overrides": {"max_lr": -1.0}}, "max_lr: must be greater than 0, got -1.0"),
    ],
)
def test_a_bad_request_is_refused_before_any_work(runs, retrained, arguments, message):
    before = sorted(runs.rglob("*"))
    with pytest.raises(InvalidInput, match=message):
        workflow.retrain("s", runs=runs, **{"epochs": 4, **arguments})
    assert sorted(runs.rglob("*")) == before


def test_a_trial_that_was_not_trained_long_cannot_be_exported(runs):
    with pytest.raises(InvalidInput, match=r"retrain_00003: training: must be there .* retrain s --trial 3"):
        workflow.export("s", trial=3, runs=runs)


def test_more_seeds_go_on_from_fewer():
    assert fresh_seeds(7, 5)[:2] == fresh_seeds(7, 2)
    assert fresh_seeds(7, 2) != fresh_seeds(8, 2)


def training(seed, *, validation, public, nll=1.0):
    figures = {"validation": {"plain": {"accuracy": validation}}, "public": {"plain": {"accuracy": public}}}
    prediction = {"views": "plain", "val_accuracy": {"plain": validation}, "val_nll": {"plain": nll}}
    return LongTraining(Path(str(seed)), 0, {"recipe": {"seed": seed}, "metrics": figures, "prediction": prediction})


def test_public_test_has_no_say_in_which_seed_is_exported_and_likelihood_breaks_a_tie():
    low = training(1, validation=0.6, public=0.9)
    unsure, sure = (training(2 + i, validation=0.7, public=0.5, nll=nll) for i, nll in enumerate((0.9, 0.8)))
    assert best_of_seeds([low, unsure, sure]) is sure


def test_two_seeds_have_a_deviation_and_no_interval():
    summary = seeds_summary([training(1, validation=0.6, public=0.5), training(2, validation=0.7, public=0.5)])
    assert summary["splits"]["validation"]["deviation"] == pytest.approx(np.sqrt(0.005))
    assert summary["splits"]["validation"]["interval"] is None
    assert set(summary["splits"]) == {"validation", "public"}
