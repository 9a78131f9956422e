"""Command lines that are to run on another machine: what of them is kept, what travels, what is refused here."""

from pathlib import Path

import pytest
import typer

from fer_search.cli import app
from fer_search.errors import InvalidInput
from fer_search.jobs.command import COMMANDS, read_command
from fer_search.jobs.demand import Demand
from fer_search.jobs.working_dir import working_dir

PARSER = typer.main.get_command(app)
SPACE = Path(__file__).parents[2] / "search_spaces" / "smoke.toml"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in ("RAY_ADDRESS", "MLFLOW_TRACKING_URI", "FER_SEARCH_RUNS"):
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    "words",
    [
        [
            "search",
            str(SPACE),
            "--name",
            "a",
            "--runs",
            "/mnt/runs",
            "epochs=3",
            "max_lr=1e-3",
            "--trials",
            "7",
            "--json",
        ],
        ["search", str(SPACE), "--name", "a", "--runs", "/mnt/runs", "--gpus-per-trial", "0.5", "--time-budget", "2.5"],
        ["resume", "a", "--runs", "/mnt/runs", "--epoch-budget", "30"],
        ["retrain", "a", "epochs=3", "--seeds", "3", "--runs", "/mnt/runs"],
        ["calibrate", str(SPACE), "--name", "c", "--runs", "/mnt/runs", "--data", "s3://bucket/fer2013.csv"],
        ["train", "--name", "t", "--runs", "/mnt/runs", "--data", "/mnt/data/fer2013.csv"],
        ["label-noise", "--name", "n", "--runs", "/mnt/runs", "--folds", "3", "epochs=4", "--json"],
        ["status", "a", "--runs", "/mnt/runs", "--json"],
    ],
)
def test_the_command_line_that_is_sent_means_what_was_written_here(words):
    here = read_command(PARSER, words)
    with working_dir(here.files) as directory:
        there = [str(directory / word) if word.startswith("files/") else word for word in here.arguments]
        again = read_command(PARSER, there)
    moved = {"space", "recipe_file"}
    assert {k: v for k, v in again.parameters.items() if k not in moved} == {
        k: v for k, v in here.parameters.items() if k not in moved
    }
    assert again.run == here.run


def test_the_package_its_version_and_the_space_travel_and_nothing_of_the_rest():
    command = read_command(PARSER, ["search", str(SPACE), "--name", "a", "--runs", "/mnt/runs"])
    assert command.arguments == ["search", "files/smoke.toml", "--name", "a", "--runs", "/mnt/runs"]
    with working_dir(command.files) as directory:
        assert (directory / "files" / "smoke.toml").read_text() == SPACE.read_text()
        assert (directory / "fer_search" / "workflow.py").exists()
        (metadata,) = directory.glob("fer_search-*.dist-info/METADATA")
        assert "Requires-Dist: torch" in metadata.read_text()
        assert {path.name for path in directory.iterdir()} == {"files", "fer_search", metadata.parent.name}
    assert not directory.exists()


def test_what_the_environment_says_here_is_sent_but_for_this_machines_own_cluster(monkeypatch):
    monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://mlflow:5000")
    monkeypatch.setenv("FER_SEARCH_RUNS", "/mnt/runs")
    monkeypatch.setenv("RAY_ADDRESS", "10.0.0.1:6379")
    command = read_command(PARSER, ["search", str(SPACE), "--name", "a"])
    assert command.arguments[2:] == ["--name", "a", "--tracking-uri", "http://mlflow:5000", "--runs", "/mnt/runs"]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["ui"], "command: must be one of search, resume"),
        ([], "command: must be one of search, resume"),
        (["search", str(SPACE), "--name", "a"], "runs: must be the absolute path"),
        (["search", str(SPACE), "--name", "a", "--runs", "runs"], "runs: must be the absolute path"),
        (
            ["search", str(SPACE), "--name", "a", "--runs", "/r", "--data", "f.csv"],
            "must be 'synthetic', an absolute",
        ),
        (["search", str(SPACE), "--name", "a", "--runs", "/r", "--address", "x:1"], "address: must not be given"),
        (
            ["train", "--name", "a", "--runs", "/r", "--soft-labels", "s.parquet"],
            "soft-labels: must be an absolute path",
        ),
        (["search", str(SPACE), "--name", "a", "--runs", "/r", "--dry-run"], "dry-run: must not be given"),
    ],
)
def test_what_another_machine_cannot_know_is_refused_here(words, message):
    with pytest.raises(InvalidInput, match=message):
        read_command(PARSER, words)


def test_everything_that_can_be_sent_is_a_command():
    assert set(COMMANDS) <= set(PARSER.commands)


def test_a_new_search_must_not_be_there_and_one_that_goes_on_must():
    def demand(*words):
        return Demand.of(read_command(PARSER, [*words, "--runs", "/r"]))

    assert demand("search", str(SPACE), "--name", "a").is_there is False
    assert demand("resume", "a").is_there is True
    assert demand("calibrate", str(SPACE), "--name", "a").is_there is None
