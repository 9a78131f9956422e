"""The process that sends a journal to MLflow: real processes are killed, real servers are taken away."""

import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from mlflow import MlflowClient

from fer_search.journal import FILE_NAME, Journal, read_journal
from fer_search.recipe import Recipe
from fer_search.sync import sync
from fer_search.tracking import EXPERIMENT
from fer_search.tracking_process import TrackingProcess
from fer_search.tracking_state import (
    RunDescription,
    TrackingState,
    mark_ended,
    num_unsent,
    read_description,
    read_tracking_state,
    write_description,
)
from fer_search.tracking_uri import local_store
from fer_search.tracking_writer import sending

POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
PARAMETERS = Recipe().model_dump()


@pytest.fixture(scope="module")
def store(tmp_path_factory, with_stores):
    return local_store(with_stores(tmp_path_factory.mktemp("store")))


@pytest.fixture
def run(tmp_path, store):
    """Return the directory of a search of two trials, the second of which has not ended."""
    return describe(tmp_path / "s", store)


def describe(directory, uri):
    directory.mkdir()
    tags, params = {"space": "toy"}, {"eta": 3}
    write_description(directory, RunDescription(uri, directory.parent.name, "toy", "s", tags, params))
    return directory


def add_epochs(directory, count):
    journal = Journal(directory / FILE_NAME)
    for number in (0, 1):
        journal.trial_started(number, PARAMETERS)
        first = len(journal.trials[number].epochs) + 1
        for epoch in range(first, first + count):
            journal.epoch_ended(number, epoch, {"val_accuracy": epoch / 100 + number})
    return journal


def until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.05)


def check(uri, directory, status, children=("FINISHED", "KILLED")):
    """Compare MLflow with the journal: as many runs as trials and one more, and every epoch once."""
    client = MlflowClient(uri)
    experiment = client.get_experiment_by_name(EXPERIMENT)
    search_id = read_description(directory).search_id
    runs = client.search_runs([experiment.experiment_id], f"tags.`fer_search.search_id` = '{search_id}'")
    by_name = {run.info.run_name: run for run in runs}
    trials = read_journal(directory / FILE_NAME)
    assert sorted(by_name) == ["s", *(f"trial {trial.number:05d}" for trial in trials)]
    assert len(runs) == len(by_name)
    assert by_name["s"].info.status == status
    for trial, expected in zip(trials, children, strict=True):
        run = by_name[f"trial {trial.number:05d}"]
        assert run.info.status == expected
        assert run.data.params["batch_size"] == str(PARAMETERS["batch_size"])
        history = client.get_metric_history(run.info.run_id, "val_accuracy")
        values = [(epoch, metrics["val_accuracy"]) for epoch, metrics in enumerate(trial.epochs, start=1)]
        assert sorted((m.step, m.value) for m in history) == values


def test_a_writer_that_is_killed_is_replaced_and_nothing_is_lost(run, store, monkeypatch):
    monkeypatch.setattr("fer_search.tracking_process.RESTART_SECONDS", 0.1)
    process = TrackingProcess(run)
    add_epochs(run, 3)
    until(lambda: not num_unsent(run))
    first = process._process
    first.kill()
    until(lambda: process._process is not first)
    add_epochs(run, 3).trial_ended(0, "COMPLETE")
    process.end("FINISHED")
    check(store, run, "FINISHED")
    assert read_tracking_state(run) == TrackingState((run / FILE_NAME).stat().st_size)


SCRIPT = """
import sys, time
from pathlib import Path
from fer_search.tracking_process import TrackingProcess
process = TrackingProcess(Path(sys.argv[1]))
time.sleep(600)
"""


def test_the_runs_of_a_search_that_is_killed_are_closed_by_the_writer_and_opened_again_by_the_next_one(run, store):
    driver = subprocess.Popen([sys.executable, "-c", SCRIPT, run])
    add_epochs(run, 2)
    until(lambda: not num_unsent(run))
    add_epochs(run, 2)
    driver.kill()
    driver.wait()
    with sending(run, wait=True):  # until the writer is done
        check(store, run, "KILLED", children=("KILLED", "KILLED"))
    process = TrackingProcess(run)
    add_epochs(run, 1).trial_ended(0, "COMPLETE")
    process.end("FINISHED")
    check(store, run, "FINISHED")


class Failing(BaseHTTPRequestHandler):
    """Answers 500 to everything, or nothing at all."""

    def handle_one_request(self):
        if self.server.hangs:
            time.sleep(3600)
        self.requestline, self.request_version, self.command = "", "HTTP/1.1", "GET"
        self.raw_requestline = self.rfile.readline()
        self.send_error(500)

    def log_message(self, *arguments):
        pass


@contextmanager
def failing_server(hangs):
    server = ThreadingHTTPServer(("127.0.0.1", 0), Failing)
    server.hangs, server.daemon_threads, server.block_on_close = hangs, True, False
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()


@pytest.mark.parametrize("kind", ["away", "500", "silent"])
def test_what_a_failing_server_did_not_take_is_known_and_can_be_sent_later(tmp_path, store, monkeypatch, kind):
    monkeypatch.setenv("MLFLOW_HTTP_REQUEST_TIMEOUT", "1")
    with ExitStack() as stack:
        uri = "http://127.0.0.1:9" if kind == "away" else stack.enter_context(failing_server(kind == "silent"))
        run = describe(tmp_path / "s", uri)
        process = TrackingProcess(run)
        add_epochs(run, 3)
        until(lambda: read_tracking_state(run).error)
        add_epochs(run, 3).trial_ended(0, "COMPLETE")
        process.end("FINISHED")
    assert num_unsent(run) == 15
    mark_ended(run, "FINISHED")
    (run / "settings.json").touch()
    for _ in range(2):
        assert sync("s", tracking_uri=store, runs=tmp_path) == {run: 15}
    check(store, run, "FINISHED")


def test_a_training_whose_server_is_away_ends_as_ever_and_is_sent_later(fer_search, store, caplog):
    settings = ["epochs=1", "fit_fraction=0.1", "backbone=test_resnet", "pretrained=false", "fusion_width=0"]
    done = fer_search("train", "--name", "t", "--tracking-uri", "http://127.0.0.1:9", *settings)
    assert done.returncode == 0
    assert any("MLflow lacks 3 events" in message for message in caplog.messages)
    missing = fer_search("sync", "t")
    assert missing.returncode == 2
    assert "http://127.0.0.1:9: tracking-uri: must be an MLflow store that answers" in missing.stderr
    done = fer_search("sync", "t", "--tracking-uri", store)
    assert (done.returncode, "all 3 events are in MLflow" in done.stdout) == (0, True)
    (run,) = MlflowClient(store).search_runs(["1"], "attributes.run_name = 't'")
    assert (run.info.status, run.data.tags["kind"], run.data.params["epochs"]) == ("FINISHED", "train", "1")


def free_port():
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


@pytest.mark.skipif(not POSTGRES or os.getuid() != 0, reason="PostgreSQL is not installed, or this is not root")
def test_a_server_and_its_postgresql_that_are_killed_in_mid_search_lose_nothing(tmp_path):
    port, bin_directory = free_port(), POSTGRES[-1]
    data = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    shutil.chown(data, "postgres")
    as_postgres = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]

    def start_database():
        command = [bin_directory / "postgres", "-D", data, "-p", str(port), "-k", data, "-h", "127.0.0.1"]
        return subprocess.Popen([*as_postgres, *command], stderr=subprocess.DEVNULL)

    def start_server():
        uri = f"postgresql://postgres@127.0.0.1:{port}/postgres"
        options = ["--workers", "1", "--backend-store-uri", uri, "--host", "127.0.0.1", "--port", str(server_port)]
        environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        command = [
            sys.executable,
            "-m",
            "mlflow",
            "server",
            *options,
            "--artifacts-destination",
            tmp_path / "artifacts",
        ]
        return subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL, start_new_session=True)

    subprocess.run([*as_postgres, bin_directory / "initdb", "-D", data, "-A", "trust"], check=True, capture_output=True)
    server_port = free_port()
    database, server = start_database(), start_server()
    try:
        uri = f"http://127.0.0.1:{server_port}"
        run = describe(tmp_path / "s", uri)
        process = TrackingProcess(run)
        add_epochs(run, 5)
        until(lambda: not num_unsent(run), seconds=120)
        os.killpg(server.pid, signal.SIGKILL)
        database.kill()
        add_epochs(run, 5)
        until(lambda: read_tracking_state(run).error)
        server.wait()
        database.wait()
        (data / "postmaster.pid").unlink(missing_ok=True)
        database, server = start_database(), start_server()
        until(lambda: not num_unsent(run), seconds=120)
        add_epochs(run, 5).trial_ended(0, "COMPLETE")
        process.end("FINISHED")
        check(uri, run, "FINISHED")
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        database.send_signal(signal.SIGQUIT)  # which ends its children too
        database.wait()
        shutil.rmtree(data)
