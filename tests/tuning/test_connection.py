"""What fits on a cluster's nodes, and who may speak to a Ray that a search started for itself."""

import os
import subprocess
import sys

import pytest

from fer_search.errors import InvalidInput
from fer_search.tuning.connection import Resources, _room, connected

HOLD = """
import os
import sys
from pathlib import Path
import ray
from fer_search.tuning.connection import connected
ray.init(address="local", num_cpus=1, include_dashboard=False, logging_level="ERROR")
ray.shutdown()
(Path.home() / ".ray/auth_token").unlink()
with connected(None):
    task = ray.remote(num_cpus=0)(lambda x: abs(x)).remote(-2)
    print(ray.get(task), ray.get_runtime_context().gcs_address, os.environ["RAY_AUTH_TOKEN"], flush=True)
    sys.stdin.read()
"""
CALL = """
import sys
import ray
ray.init(address=sys.argv[1], logging_level="ERROR")
print("connected")
"""


@pytest.mark.parametrize(
    ("node", "resources", "room"),
    [
        ({"CPU": 8.0}, Resources(cpus=1), 8),
        ({"CPU": 8.0}, Resources(cpus=3), 2),
        ({"CPU": 8.0}, Resources(cpus=1, gpus=1), 0),
        ({"CPU": 8.0, "GPU": 2.0}, Resources(cpus=1, gpus=1), 2),
        ({"CPU": 8.0, "GPU": 4.0}, Resources(cpus=1, gpus=2), 2),
        ({"CPU": 64.0, "GPU": 4.0}, Resources(cpus=1, gpus=0.25), 16),
        ({"CPU": 64.0, "GPU": 4.0}, Resources(cpus=1, gpus=0.4), 8),  # two on each: no trial has parts of two GPUs
        ({"CPU": 3.0, "GPU": 4.0}, Resources(cpus=1, gpus=0.25), 3),
        ({"memory": 1.0}, Resources(cpus=1), 0),
    ],
)
def test_as_many_trials_fit_on_a_node_as_its_scarcest_resource_holds(node, resources, room):
    assert _room(node, resources) == room


def test_a_ray_of_its_own_works_after_another_one_answers_nobody_else_and_leaves_no_token_behind(tmp_path):
    clean = {key: value for key, value in os.environ.items() if not key.startswith("RAY_")}
    clean["HOME"] = str(tmp_path)
    search = subprocess.Popen(
        [sys.executable, "-c", HOLD], env=clean, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    try:
        result, address, token = search.stdout.readline().split()
        assert result == "2"
        assert not list(tmp_path.rglob("auth_token"))

        def call(**given):
            environment = {**clean, "RAY_NUM_REDIS_GET_RETRIES": "3", **given}
            words = [sys.executable, "-c", CALL, address]
            return subprocess.Popen(
                words, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True
            )

        known = call(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN=token)
        strangers = call(RAY_AUTH_MODE="token", RAY_AUTH_TOKEN="0" * 64), call(RAY_AUTH_MODE="disabled")
        assert "connected" in known.communicate(timeout=120)[0]
        assert all("connected" not in stranger.communicate(timeout=120)[0] for stranger in strangers)
    finally:
        search.communicate("")


def test_a_ray_that_cannot_start_here_is_one_line_with_its_own_reason(tmp_path, monkeypatch):
    monkeypatch.setenv("RAY_TMPDIR", str(tmp_path / ("long" * 30)))  # more than the path of a socket has room for
    with pytest.raises(InvalidInput, match=r"Ray: start: must start on this machine; .* got 'validate_socket_filename"):
        connected(None).__enter__()
