"""The shell scripts for clusters."""

import os
import shutil
import signal
import subprocess
import time
from pathlib import Path

import pytest

CLUSTER = Path(__file__).resolve().parents[2] / "cluster"
NODE = CLUSTER / "ray_node.sh"
SCRIPTS = sorted(path for path in CLUSTER.rglob("*") if path.suffix in (".sh", ".sbatch"))


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(CLUSTER)))
def test_shellcheck_has_nothing_to_say_about_a_script(script):
    done = subprocess.run(
        ["shellcheck", "--external-sources", "--source-path", CLUSTER.parent, script], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stdout


@pytest.mark.parametrize(
    ("words", "mode", "message"),
    [
        ([], 0o600, "must be called with head or worker, got ''"),
        (["worker"], 0o600, "must name the head's address"),
        (["head"], None, "must be readable, got"),
        (["head"], 0o644, "must be readable by its owner alone"),
        (["head"], 0o640, "must be readable by its owner alone"),
    ],
)
def test_a_node_does_not_start_without_a_token_of_its_own(tmp_path, words, mode, message):
    token = tmp_path / "token"
    if mode is not None:
        token.write_text("t")
        token.chmod(mode)
    environment = {**os.environ, "RAY_AUTH_TOKEN_PATH": str(token)}
    done = subprocess.run([NODE, *words], env=environment, capture_output=True, text=True)
    assert done.returncode == 2
    assert message in done.stderr


@pytest.mark.parametrize(("failures", "code", "starts"), [(0, 0, 1), (2, 0, 3), (5, 1, 3)])
def test_a_node_that_does_not_come_up_in_the_time_that_ray_gives_it_is_started_again_twice(
    tmp_path, failures, code, starts
):
    done = _start_node(tmp_path, f'[ "$(wc -l <{tmp_path}/starts)" -gt {failures} ]').wait(timeout=30)
    assert done == code
    words = (tmp_path / "starts").read_text().splitlines()
    assert len(words) == starts
    assert set(words) == {words[0]}
    assert words[0].startswith("start --block ")
    assert words[0].endswith("--address=10.0.0.1:6379 --num-cpus=3")


def test_a_node_that_is_told_to_end_ends_ray_waits_for_it_and_does_not_start_it_again(tmp_path):
    behaviour = f"trap 'sleep 0.3; echo ended >{tmp_path}/ended; exit 143' TERM; sleep 60 & wait"
    node = _start_node(tmp_path, behaviour)
    deadline = time.monotonic() + 30
    while not (tmp_path / "starts").exists() and time.monotonic() < deadline:
        time.sleep(0.05)
    node.send_signal(signal.SIGTERM)
    assert node.wait(timeout=30) == 143
    assert (tmp_path / "ended").read_text() == "ended\n"
    assert (tmp_path / "starts").read_text().count("\n") == 1


def _start_node(directory, behaviour):
    """Start a worker where `ray` writes down that it was called, and then behaves as a line of Bash says."""
    program = directory / "bin" / "ray"
    program.parent.mkdir()
    program.write_text(f'#!/usr/bin/env bash\necho "$*" >>{directory}/starts\n{behaviour}\n')
    program.chmod(0o755)
    token = directory / "token"
    token.write_text("t")
    token.chmod(0o600)
    path = f"{program.parent}:{os.environ['PATH']}"
    environment = {**os.environ, "PATH": path, "RAY_AUTH_TOKEN_PATH": str(token), "NODE_ADDRESS": "10.0.0.2"}
    return subprocess.Popen([NODE, "worker", "10.0.0.1", "--num-cpus=3"], env=environment)
