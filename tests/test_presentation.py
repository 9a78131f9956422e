"""What MLflow shows of a search beside its journals, in a real store, read with MLflow's own client.

The search is one on disk whose journals are written by hand, so that nothing has to be trained to race.
"""

import base64
import json
import threading
import zlib
from pathlib import Path
from urllib.parse import parse_qs, unquote, urlsplit

import pytest
import torch
from mlflow import MlflowClient
from rich.table import Table
from safetensors.torch import load_file

from fer_search import presentation, workflow
from fer_search.checkpoints import Checkpoints
from fer_search.data.synthetic import synthesize
from fer_search.finalists import write_finalists
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal
from fer_search.presentation import present
from fer_search.recipe import Recipe
from fer_search.record import describe_data, package_versions
from fer_search.runs import write_json
from fer_search.search_note import MOST_CHARACTERS, markdown_table, search_note
from fer_search.searches import prepare
from fer_search.standings import finalist_directory
from fer_search.sync import sync
from fer_search.tracking import EXPERIMENT, Tracker
from fer_search.tracking_links import TRAINING, link_lines
from fer_search.tracking_state import RunDescription, TrackingState, write_description, write_tracking_state
from fer_search.tracking_uri import local_store
from fer_search.tracking_writer import send_all
from fer_search.training.trainer import EpochReport, Trainer
from fer_search.tuning.race import RaceState
from fer_search.tuning.retention import trial_directory

SPACE = """
[search]
num_trials = 4

[base]
backbone = "test_resnet"
pretrained = false
stem_stride = 2
drop_path = 0.0
fusion_width = 0
epochs = 3
ema_decay = 0.0

[space.max_lr]
low = 0.0005
high = 0.05
log = true

[space.optimizer]
choices = ["sgd", "adamw"]
"""
VALUES = [(0.40, 0.41, 0.42), (0.30,), (0.50, 0.52, 0.55), (0.45, 0.50, 0.54)]
RACED = {2: (0.50, 0.51, 0.49), 3: (0.56, 0.58, 0.57), 0: (0.40, 0.41, 0.42)}


@pytest.fixture(scope="module")
def plan(tmp_path_factory):
    """The checked space, which takes seconds too."""
    path = tmp_path_factory.mktemp("space") / "space.toml"
    path.write_text(SPACE)
    return prepare(path, data="synthetic", overrides=None, num_trials=None)


@pytest.fixture
def search(tmp_path, with_stores, plan):
    """A search of four trials that has ended, in MLflow as its writer leaves it."""
    directory, uri = tmp_path / "s", local_store(with_stores(tmp_path))
    settings = {
        "kind": "search", "search_id": "abc", "space_file": "space.toml", "space": plan.table,
        "parameters": plan.space.parameters, "resources": {}, "address": None, "tracking_uri": uri,
        "data": describe_data("synthetic", plan.faces, plan.splits), "versions": package_versions(),
    }  # fmt: skip
    write_json(directory / "settings.json", settings)
    write_description(directory, RunDescription(uri, "abc", "search", "s", {}, {}, status="FINISHED"))
    journal = Journal(directory / JOURNAL)
    for number, values in enumerate(VALUES):
        point = {**plan.space.first_point, "max_lr": 0.001 * (number + 1)}
        journal.trial_started(number, plan.space.complete(point), point=point)
        for epoch, value in enumerate(values, start=1):
            journal.epoch_ended(number, epoch, {"val_accuracy": value, "epoch_seconds": 2.0})
        journal.trial_ended(number, "COMPLETE" if len(values) == 3 else "PRUNED")
    send_all(directory)
    return directory


def race(search, raced=RACED):
    """Write the race of a search, and send it as its writer does."""
    found = workflow.read_search("s", runs=search.parent)
    directory, uri = search / "race", found.settings["tracking_uri"]
    write_json(directory / "settings.json", {
        "kind": "race", "search_id": "of-race", "entrants": sorted(raced), "max_seeds": 3, "tracking_uri": uri,
    })  # fmt: skip
    write_description(directory, RunDescription(uri, "of-race", "race", "s race", {}, {}, status="FINISHED"))
    journal = Journal(directory / JOURNAL)
    parameters = {trial.number: trial.parameters for trial in found.trials if trial.number in raced}
    rules = {"metric": "val_accuracy", "horizon": 3, "seed": found.space.seed, "min_seeds": 3, "max_seeds": 3}
    seeds = RaceState(parameters, journal, **rules).seeds
    for entrant, values in raced.items():
        for seed, value in zip(seeds, values, strict=True):
            number = len(journal.trials)
            journal.trial_started(number, {**parameters[entrant], "seed": seed}, point={"trial": entrant, "seed": seed})
            for epoch in (1, 2, 3):
                journal.epoch_ended(number, epoch, {"val_accuracy": value})
            journal.trial_ended(number, "COMPLETE")
    send_all(directory)
    return directory


def runs_of(search, **tags):
    client = MlflowClient(local_store(search.parent))
    experiment = client.get_experiment_by_name(EXPERIMENT)
    found = client.search_runs([experiment.experiment_id], max_results=1000)
    return client, [run for run in found if all(run.data.tags.get(key) == value for key, value in tags.items())]


def shown(search):
    """Return all that MLflow has: of every run its tags, params and every point of its metrics, and the artifacts."""
    client, runs = runs_of(search)
    points = {
        run.info.run_id: {key: [(m.step, m.timestamp, m.value) for m in client.get_metric_history(run.info.run_id, key)]
                          for key in run.data.metrics} for run in runs
    }  # fmt: skip
    files = {
        run.info.run_id: [file.path for file in client.list_artifacts(run.info.run_id, "finalist")] for run in runs
    }
    experiment = client.get_experiment_by_name(EXPERIMENT)
    return {run.info.run_id: run.data.tags for run in runs}, points, files, experiment.tags


def names_with(search, tag):
    return {run.info.run_name: run.data.tags[tag] for run in runs_of(search)[1] if tag in run.data.tags}


def note_of(search, **tags):
    _, (run,) = runs_of(search, **tags)
    return run.data.tags["mlflow.note.content"]


def test_the_best_trial_and_the_best_few_are_marked_and_the_race_moves_the_mark_of_the_best(search):
    present(workflow.read_search("s", runs=search.parent))
    assert names_with(search, "best") == {"trial 00002": "true"}
    ranks = {"trial 00002": "1", "trial 00003": "2", "trial 00000": "3", "trial 00001": "4"}
    assert names_with(search, "rank") == ranks
    race(search)
    present(workflow.read_search("s", runs=search.parent))
    assert names_with(search, "best") == {"trial 00003": "true"}
    assert names_with(search, "rank") == ranks


def test_a_rank_that_a_later_trial_takes_is_taken_away(search):
    present(workflow.read_search("s", runs=search.parent))
    tracker = Tracker(local_store(search.parent))
    tracker.mark("abc", {"trial/1": {"rank": "1", "best": "true"}}, names=("rank", "best"))
    assert (names_with(search, "rank"), names_with(search, "best")) == ({"trial 00001": "1"}, {"trial 00001": "true"})


def test_what_is_sent_again_changes_nothing(search):
    race(search)
    result = workflow.read_search("s", runs=search.parent)
    present(result)
    before = shown(search)
    present(result)
    assert sync("s", runs=search.parent).keys() == {search, search / "race"}
    assert shown(search) == before


@pytest.mark.parametrize("num_calls", [1, 4, 9])
def test_what_a_kill_in_between_left_out_is_sent_by_the_next_one(search, monkeypatch, caplog, num_calls):
    race(search)
    result, calls = workflow.read_search("s", runs=search.parent), iter(range(num_calls))

    def dying(name):
        original = getattr(MlflowClient, name)

        def call(*arguments, **settings):
            if next(calls, None) is None:
                raise ConnectionError("killed")
            return original(*arguments, **settings)

        return call

    with monkeypatch.context() as patch:
        for name in ("log_batch", "delete_tag", "set_experiment_tag", "log_artifact"):
            patch.setattr(MlflowClient, name, dying(name))
        present(result)
    assert len(names_with(search, "best")) <= 1
    present(result)
    once = shown(search)
    assert names_with(search, "best") == {"trial 00003": "true"}
    present(result)
    assert shown(search) == once


def test_the_description_says_what_was_searched_how_it_ended_who_is_best_and_what_the_race_says(search):
    present(workflow.read_search("s", runs=search.parent))
    note = note_of(search, kind="search")
    for text in (
        "finished, 4 trials (1 stopped, 3 complete)", "`max_lr` 0.0005 to 0.05, log", "`optimizer` one of sgd, adamw",
        "Best in the search: **trial 2**, `val_accuracy` 0.5500 (95 %",
        "`backbone` test_resnet", "4 trials; spent 10 epochs, 20 s of training",
        "| 1&ensp; | 2&ensp; | COMPLETE&ensp; | 3/3&ensp; | 55.0%&ensp; |",
        "fer-search race s",
    ):  # fmt: skip
        assert text in note
    assert "### The race" not in note
    race(search)
    present(workflow.read_search("s", runs=search.parent))
    assert "the winner is trial 3" in note_of(search, kind="search")
    assert "the winner is trial 3" in note_of(search, kind="race")
    _, children = runs_of(search, kind="trial")
    notes = {run.info.run_name: run.data.tags["mlflow.note.content"] for run in children}
    assert notes["trial 00001"] == "`max_lr` 0.002, `optimizer` adamw"
    assert sum(name.startswith("trial 00003, seed ") for name in notes) == 3


def test_a_search_that_is_not_done_says_how_to_go_on(search):
    with (search / JOURNAL).open("r+b") as file:
        lines = file.readlines()
        file.seek(0)
        file.truncate(sum(map(len, lines[:-1])))
    present(workflow.read_search("s", runs=search.parent))
    assert "not finished, 4 of 4 trials" in note_of(search, kind="search")
    assert "`fer-search resume s`" in note_of(search, kind="search")


def test_the_races_figures_are_metrics_of_the_trials_that_raced(search):
    race(search)
    present(workflow.read_search("s", runs=search.parent))
    _, runs = runs_of(search, **{"fer_search.search_id": "abc", "kind": "trial"})
    means = {run.info.run_name: run.data.metrics.get("race_mean") for run in runs}
    assert means == {
        "trial 00000": pytest.approx(0.41), "trial 00001": None, "trial 00002": pytest.approx(0.50),
        "trial 00003": pytest.approx(0.57),
    }  # fmt: skip
    _, (parent,) = runs_of(search, kind="search")
    assert parent.data.metrics["best_val_accuracy"] == 0.55  # the search's own, whatever a race says


def test_the_saved_view_shows_the_trials_of_this_search_best_first_and_what_was_searched(search):
    present(workflow.read_search("s", runs=search.parent))
    client, _ = runs_of(search)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    view = json.loads(experiment.tags["mlflow.sharedViewState.abc"])
    assert view["name"] == "s: trials"
    state = json.loads(zlib.decompress(base64.b64decode(view["state"].removeprefix("deflate;"))))
    order = f"{state['orderByKey']} {'ASC' if state['orderByAsc'] else 'DESC'}"
    found = client.search_runs([experiment.experiment_id], state["searchFilter"], order_by=[order])
    names = [run.info.run_name for run in found]
    assert names == ["trial 00002", "trial 00003", "trial 00000", "trial 00001"]
    assert {"metrics.`val_accuracy`", "params.`max_lr`", "params.`optimizer`"} <= set(state["selectedColumns"])
    sections = {section["uuid"] for section in state["compareRunSections"]}
    assert {chart["metricSectionId"] for chart in state["compareRunCharts"]} <= sections


def test_the_links_lead_to_the_search_and_its_view_by_the_servers_address(search):
    result = workflow.read_search("s", runs=search.parent)
    assert link_lines(search) == []
    present(result)
    _, (run,) = runs_of(search, kind="search")
    command, first, second = link_lines(search)
    assert first.endswith(
        f"http://127.0.0.1:5000/#/experiments/{run.info.experiment_id}/runs/{run.info.run_id}?{TRAINING}"
    )
    assert second.endswith(f"/#/experiments/{run.info.experiment_id}/runs?viewStateShareKey=abc&{TRAINING}")
    assert f"fer-search ui --runs {search.parent}" in command
    stored = json.loads((search / "links.json").read_text())
    compared = parse_qs(urlsplit(stored["compare"].removeprefix("#")).query)
    ranked = {run.info.run_id for run in runs_of(search)[1] if "rank" in run.data.tags}
    assert set(json.loads(compared["runs"][0])) == ranked
    (search / "links.json").write_text(json.dumps({**stored, "uri": "http://mlflow:5000/"}))
    assert link_lines(search) == [unquote(line.replace("127.0.0.1", "mlflow")) for line in (first, second)]


def test_the_finalists_runs_have_their_weights_and_what_they_confuse(search):
    directory, result = race(search), workflow.read_search("s", runs=search.parent)
    recipe = Recipe.build(result.trials[3].parameters)
    faces = synthesize(300)
    trainer = Trainer(recipe, faces, faces, device=torch.device("cpu"))
    kept = trial_directory(search / "checkpoints", 3)
    Checkpoints(kept).save(3, {"val_accuracy": 0.54}, EpochReport({}, trainer))
    raced = [trial for trial in result.trials if trial.number in RACED]
    for _ in range(2):
        write_finalists(directory, raced, metric="val_accuracy", source="synthetic")
    written = finalist_directory(directory, 3)
    assert [path.name for path in (directory / "finalists").iterdir()] == ["trial_00003"]
    assert Recipe.read(written / "recipe.toml") == recipe
    weights = load_file(written / "weights.safetensors")
    assert all(torch.equal(weights[name], value) for name, value in trainer.model.state_dict().items())
    present(result)
    client, runs = runs_of(search, **{"fer_search.search_id": "abc"})
    names = {run.info.run_name: [Path(file.path).name for file in client.list_artifacts(run.info.run_id, "finalist")]
             for run in runs}  # fmt: skip
    assert names.pop("trial 00003") == ["confusion.png", "recipe.toml", "weights.safetensors"]
    assert not any(names.values())


def test_a_server_that_does_not_answer_costs_a_warning_and_no_more_than_its_time(search, monkeypatch, caplog):
    monkeypatch.setattr(presentation, "SECONDS", 0.2)
    forever = threading.Event()
    monkeypatch.setattr(MlflowClient, "search_runs", lambda *arguments, **settings: forever.wait(60))
    present(workflow.read_search("s", runs=search.parent))
    forever.set()
    assert any("fer-search sync s will send them" in message for message in caplog.messages)


def test_where_the_search_itself_was_not_taken_nothing_is_tried_and_nothing_said_again(search, caplog):
    write_tracking_state(search, TrackingState(0, "the server is away"))
    present(workflow.read_search("s", runs=search.parent))
    assert (names_with(search, "best"), caplog.messages) == ({}, [])


def test_a_table_in_markdown_has_its_bold_cells_its_sides_and_its_caption():
    table = Table("name", title="x", caption="* more")
    table.add_column("value", justify="right")
    table.add_row("a|b", "[bold]1[/]")
    assert (
        markdown_table(table)
        == "| name&ensp; | value&ensp; |\n| :-- | --: |\n| a\\|b&ensp; | **1**&ensp; |\n\n\\* more"
    )


def test_a_description_is_never_longer_than_mlflow_takes(search, monkeypatch):
    result = workflow.read_search("s", runs=search.parent)
    monkeypatch.setattr("fer_search.search_note.MOST_CHARACTERS", 300)
    assert MOST_CHARACTERS == 8000
    assert len(search_note(result)) == 300
