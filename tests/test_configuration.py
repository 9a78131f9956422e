"""Settings of a file and of the environment, seen in what commands then do."""

import pytest
import typer

from fer_search.cli import app
from fer_search.configuration import VARIABLES, option_defaults, read_configuration
from fer_search.errors import InvalidInput
from fer_search.jobs.command import read_command


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch):
    for name in VARIABLES.values():
        monkeypatch.delenv(name, raising=False)


@pytest.mark.parametrize(
    ("file", "environment", "arguments", "expected"),
    [
        (None, None, (), "runs"),
        ("of_file", None, (), "of_file"),
        ("of_file", "of_environment", (), "of_environment"),
        ("of_file", "of_environment", ("--runs", "of_command_line"), "of_command_line"),
    ],
)
def test_the_command_line_goes_before_the_environment_and_that_before_the_file(
    tmp_path, fer_search, monkeypatch, file, environment, arguments, expected
):
    if file is not None:
        (tmp_path / "fer_search.toml").write_text(f'runs = "{file}"\n')
    if environment is not None:
        monkeypatch.setenv("FER_SEARCH_RUNS", environment)
    done = fer_search("status", "nothing", *arguments)
    assert done.returncode == 2
    assert f"error: {expected}: name: must be that of a search or a training" in done.stderr


def test_the_file_is_the_nearest_one_upwards_and_its_paths_are_seen_from_itself(tmp_path):
    (tmp_path / "fer_search.toml").write_text('runs = "outer"\n')
    (tmp_path / "a").mkdir()
    (tmp_path / "a" / "pyproject.toml").write_text(
        '[tool.fer_search]\nruns = "own"\ndata = "fer/fer2013.csv"\ntracking-uri = "http://mlflow:5000"\n'
    )
    (tmp_path / "a" / "b" / "c").mkdir(parents=True)
    (tmp_path / "a" / "b" / "pyproject.toml").write_text('[tool.other]\nruns = "foreign"\n')
    assert read_configuration(tmp_path / "a" / "b" / "c") == {
        "runs": "../../own",
        "data": "../../fer/fer2013.csv",
        "tracking-uri": "http://mlflow:5000",
    }
    assert read_configuration(tmp_path / "a")["runs"] == "own"
    assert read_configuration(tmp_path) == {"runs": "outer"}


@pytest.mark.parametrize("value", ["synthetic", "s3://bucket/fer2013.csv", "/data/fer2013.csv"])
def test_data_that_is_no_relative_path_is_taken_as_it_is(tmp_path, value):
    (tmp_path / "fer_search.toml").write_text(f'data = "{value}"\n')
    (tmp_path / "below").mkdir()
    assert read_configuration(tmp_path / "below") == {"data": value}


@pytest.mark.parametrize(
    ("content", "messages"),
    [
        ('run = "x"\n', ["run: must be one of runs, data, tracking-uri, address, dashboard (did you mean 'runs'?)"]),
        ("runs = 3\ndata = ''\n", ["runs: must be a text, got 3", "data: must be a text, got ''"]),
        ('tracking-uri = "mlruns"\n', ["tracking-uri: must begin with one of http:"]),
        ('tracking-uri = "http://me:secret@mlflow"\n', ["tracking-uri: must hold no password"]),
        ('data = "s3://me:secret@bucket/f.csv"\n', ["data: must hold no credentials"]),
        ("runs\n", ["file: must be TOML"]),
    ],
)
def test_what_is_wrong_in_the_file_is_said_at_once_and_ends_with_2(tmp_path, fer_search, content, messages):
    (tmp_path / "fer_search.toml").write_text(content)
    done = fer_search("recipe")
    assert (done.returncode, done.stdout) == (2, "")
    for line, message in zip(done.stderr.splitlines(), messages, strict=True):
        assert line.startswith(f"error: {tmp_path / 'fer_search.toml'}: {message}")
    assert "secret" not in done.stderr


def test_two_files_in_one_directory_are_refused(tmp_path):
    (tmp_path / "fer_search.toml").write_text("")
    (tmp_path / "pyproject.toml").write_text("[tool.fer_search]\n")
    with pytest.raises(InvalidInput, match=r"tool\.fer_search: must not be there beside"):
        read_configuration(tmp_path)


EVERYTHING = {
    "runs": "/mnt/runs",
    "data": "/mnt/fer2013.csv",
    "tracking-uri": "http://mlflow:5000",
    "address": "10.0.0.1:6379",
    "dashboard": "http://127.0.0.1:8265",
}


def test_every_setting_reaches_the_options_of_its_variable_and_no_others():
    found = option_defaults(typer.main.get_command(app), EVERYTHING)
    ray = {"runs": "/mnt/runs", "address": "10.0.0.1:6379"}
    assert found["search"] == {**ray, "data": "/mnt/fer2013.csv", "tracking_uri": "http://mlflow:5000"}
    assert found["resume"] == ray
    assert found["list"] == found["stop"] == {"address": "http://127.0.0.1:8265"}
    assert found["evaluate"] == {"runs": "/mnt/runs"}, "its data is the bundle's own"
    assert found["sync"] == {"runs": "/mnt/runs"}, "its store is the run's own"
    assert found["data"] == {"check": {}, "synth": {}}


def submitted(words, settings):
    """What submit sends where the file has these settings."""
    group = typer.main.get_command(app)
    with group.make_context("fer-search", ["submit"], default_map=option_defaults(group, settings)) as root:
        submit = group.commands["submit"].make_context("submit", words, parent=root)
        return read_command(group, submit.args, parent=submit).arguments


def test_a_job_gets_the_settings_of_the_file_but_for_this_machines_own_cluster():
    words = ["retrain", "first", "--seeds", "3"]
    assert submitted(words, EVERYTHING) == [*words, "--runs", "/mnt/runs"]
    words = ["train", "--name", "t"]
    sent = ["--data", "/mnt/fer2013.csv", "--tracking-uri", "http://mlflow:5000", "--runs", "/mnt/runs"]
    assert submitted(words, EVERYTHING) == [*words, *sent]


def test_a_place_of_this_machine_in_the_file_is_refused_by_submit_and_not_left_out():
    with pytest.raises(InvalidInput) as error:
        submitted(["train", "--name", "t"], {"runs": "runs", "data": "fer2013.csv"})
    assert [line.partition(", got")[0] for line in error.value.problems] == [
        "command line: runs: must be the absolute path of a directory that every node of the cluster shares",
        "command line: data: must be 'synthetic', an absolute path that every node of the cluster has, or a URI",
    ]
