"""What must hold of the record of a search, whatever was killed under it."""

from pathlib import Path

from mlflow import MlflowClient

from fer_search.data.fer2013 import load_faces
from fer_search.journal import FILE_NAME, read_events, read_journal, reproducible
from fer_search.races import objective_on
from fer_search.recipe import Recipe
from fer_search.record import split_for
from fer_search.tuning.connection import Resources


def check_record(run: Path, client: MlflowClient) -> None:
    """Every trial ended, and journal and MLflow hold every epoch of every trial exactly once."""
    trials = read_journal(run / FILE_NAME)
    assert all(trial.ended for trial in trials)
    assert "FAIL" not in {trial.state for trial in trials}
    events = [event for event, _ in read_events(run / FILE_NAME) if event["event"] == "epoch_ended"]
    runs = client.search_runs([experiment.experiment_id for experiment in client.search_experiments()])
    assert len(runs) == len(trials) + 1
    assert "RUNNING" not in {each.info.status for each in runs}
    by_name = {each.info.run_name: each for each in runs}
    assert by_name[run.name].info.status == "FINISHED"
    for trial in trials:
        reached = list(range(1, len(trial.epochs) + 1))
        assert [event["epoch"] for event in events if event["trial"] == trial.number] == reached
        tracked = by_name[f"trial {trial.number:05d}"]
        assert tracked.info.status == ("FINISHED" if trial.state == "COMPLETE" else "KILLED")
        for name in trial.epochs[0]:
            history = sorted((m.step, m.value) for m in client.get_metric_history(tracked.info.run_id, name))
            assert history == [(epoch, metrics[name]) for epoch, metrics in enumerate(trial.epochs, start=1)]


def check_twins(run: Path) -> None:
    """The curve of every trial is, bit for bit, that of the same training without interruption in one process."""
    faces = load_faces("synthetic")
    for trial in read_journal(run / FILE_NAME):
        splits = split_for(faces, Recipe.build(trial.parameters))
        twin = objective_on(splits, Resources(cpus=1))(trial.parameters, None)
        for metrics, report in zip(trial.epochs, twin, strict=False):
            assert reproducible(metrics) == reproducible(report.metrics)
