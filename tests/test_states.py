"""How trials of real searches end, and what waits for a resume, as MLflow and Optuna tell it."""

import optuna
import pytest
from mlflow import MlflowClient

from fer_search import workflow
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import read_events, read_journal
from fer_search.tracking_uri import local_store
from fer_search.tuning.connection import Resources
from fer_search.tuning.limit import Budget

BASE = """
[base]
backbone = "test_resnet"
pretrained = false
stem_stride = 2
drop_path = 0.0
fusion_width = 0
epochs = 4
batch_size = 8
accumulation = 1
mixup_alpha = 0.0
cutmix_alpha = 0.0
ema_decay = 0.0
grad_clip = 0.0
fit_fraction = 0.2

[space.max_lr]
low = 0.001
high = 0.4
log = true
default = 0.4

[space.weight_decay]
low = 0.0005
high = 10.0
log = true
default = 10.0
"""
# A step of AdamW also multiplies the weights by 1 - max_lr * weight_decay: at the peak of the first trial's rate by -3,
# so that they overflow in its second epoch.
STOPPING = """
[search]
scheduler = "stopping"
searcher = "random"
num_trials = 7
first_rung = 1
"""
ENDLESS = """
[search]
searcher = "random"
num_trials = 1000
first_rung = 1
"""


@pytest.fixture(scope="module")
def runs(cluster, tmp_path_factory, with_stores, an_hour_goes_by):
    """One search to its end and one until its time is up, in one directory."""
    directory = with_stores(tmp_path_factory.mktemp("states"))
    for name, how, budget in (("stopping", STOPPING, Budget()), ("endless", ENDLESS, Budget(hours=1))):
        space = directory / f"{name}.toml"
        space.write_text(BASE + how)
        with an_hour_goes_by(directory / "endless" / JOURNAL, num_epochs=4):
            workflow.search(space, name=name, resources=Resources(max_concurrent=1), budget=budget, runs=directory)
    return directory


def mlflow_runs(runs, name):
    """Return the parent run of a search and its trials' in order, found by no tag but MLflow's own."""
    client = MlflowClient(local_store(runs))
    found = client.search_runs([each.experiment_id for each in client.search_experiments()], max_results=1000)
    (parent,) = (run for run in found if run.info.run_name == name)
    children = [run for run in found if run.data.tags.get("mlflow.parentRunId") == parent.info.run_id]
    return client, parent, sorted(children, key=lambda run: run.info.run_name)


def study(runs, name):
    return optuna.load_study(study_name=name, storage=f"sqlite:///{runs / 'optuna.db'}")


def check(runs, name):
    """Hold MLflow and Optuna against the journal, trial by trial, and return the journal's trials."""
    trials = read_journal(runs / name / JOURNAL)
    client, _, children = mlflow_runs(runs, name)
    assert [run.info.run_name for run in children] == [f"trial {trial.number:05d}" for trial in trials]
    for trial, run, mirrored in zip(trials, children, study(runs, name).trials, strict=True):
        status, state, value = {
            "COMPLETE": ("FINISHED", "COMPLETE", trial.last("val_accuracy")),
            "PRUNED": ("KILLED", "PRUNED", trial.last("val_accuracy")),
            "FAIL": ("FAILED", "FAIL", None),
            "PAUSED": ("KILLED", "WAITING", None),
        }[trial.state]
        assert (run.info.status, mirrored.state.name, mirrored.value) == (status, state, value)
        curve = {epoch: metrics["val_accuracy"] for epoch, metrics in enumerate(trial.epochs, start=1)}
        assert mirrored.intermediate_values == curve
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        assert {point.step: point.value for point in history} == curve
        assert len(history) == len(curve)
        assert mirrored.params == trial.point
        assert float(run.data.params["max_lr"]) == trial.point["max_lr"]
    return trials


def test_a_training_whose_loss_is_nan_ends_at_once_as_failed_and_says_why(runs):
    trial = check(runs, "stopping")[0]
    assert trial.state == "FAIL"
    assert "nan" in trial.message
    assert len(trial.epochs) < 4
    of_trial = [event for event, _ in read_events(runs / "stopping" / JOURNAL) if event["trial"] == 0]
    assert [event["event"] for event in of_trial if event["event"] != "trial_promoted"] == [
        "trial_started", *["epoch_ended"] * len(trial.epochs), "trial_ended",
    ]  # fmt: skip
    _, parent, children = mlflow_runs(runs, "stopping")
    assert children[0].data.tags["message"] == study(runs, "stopping").trials[0].user_attrs["message"] == trial.message
    assert parent.info.status == "FINISHED"


def test_a_trial_that_halving_stopped_is_pruned_with_its_last_epoch_for_its_value(runs):
    trials = check(runs, "stopping")
    halved = [trial for trial in trials if trial.state == "PRUNED" and not trial.message]
    assert halved
    for trial in halved:
        mirrored = study(runs, "stopping").trials[trial.number]
        assert mirrored.last_step == len(trial.epochs)
        assert mirrored.value == mirrored.intermediate_values[mirrored.last_step]


def test_two_searches_in_one_directory_do_not_mix(runs):
    trials = {name: check(runs, name) for name in ("stopping", "endless")}
    assert optuna.get_all_study_names(f"sqlite:///{runs / 'optuna.db'}") == ["stopping", "endless"]
    _, first, of_first = mlflow_runs(runs, "stopping")
    client, second, of_second = mlflow_runs(runs, "endless")
    assert first.info.run_id != second.info.run_id
    assert len(of_first) == len(trials["stopping"]) == 7
    everything = client.search_runs([first.info.experiment_id], max_results=1000)
    assert len(everything) == 2 + len(of_first) + len(of_second)
    for parent, children in ((first, of_first), (second, of_second)):
        assert {run.data.tags["fer_search.search_id"] for run in (parent, *children)} == {
            parent.data.tags["fer_search.search_id"]
        }


def test_when_its_time_is_up_nothing_of_a_search_is_running_and_it_goes_on_in_the_same_trials(runs):
    before = check(runs, "endless")
    assert "PAUSED" in {trial.state for trial in before}
    _, parent, _ = mlflow_runs(runs, "endless")
    assert parent.info.status == "KILLED"
    num_epochs = sum(len(trial.epochs) for trial in before)
    result = workflow.resume("endless", budget=Budget(epochs=num_epochs + 4), runs=runs)
    assert sum(len(trial.epochs) for trial in result.trials) == num_epochs + 4
    after = check(runs, "endless")
    assert "PAUSED" in {trial.state for trial in after}
    assert len(study(runs, "endless").trials) == len(after)
    for old, new in zip(before, after, strict=False):
        assert new.epochs[: len(old.epochs)] == old.epochs
