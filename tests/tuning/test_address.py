"""A search on a Ray cluster that was there before it, in a network of its own so that no other Ray is touched."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest

from fer_search.journal import FILE_NAME, read_journal

ISOLATED = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc", "--kill-child"]
SCRIPT = """
ip link set lo up
ray start --head --node-ip-address=127.0.0.1 --port=6379 --num-cpus=2 --include-dashboard=false --temp-dir={sockets}
python {toy} {directory}/search 3 127.0.0.1:6379
"""


def can_isolate():
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    return subprocess.run([*ISOLATED, "ip", "link", "set", "lo", "up"], capture_output=True).returncode == 0


@pytest.mark.skipif(not can_isolate(), reason="network namespaces (unshare and ip, as root) are not to be had here")
def test_a_search_runs_on_a_cluster_that_is_there_and_leaves_it_running(tmp_path):
    sockets = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path has room for 107 bytes
    script = SCRIPT.format(directory=tmp_path, sockets=sockets, toy=Path(__file__).with_name("toy.py"))
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ["PATH"]])
    environment = {**os.environ, "PATH": path, "RAY_AUTH_MODE": "disabled"}
    command = [*ISOLATED, "timeout", "-s", "KILL", "150", "bash", "-ec", script + "ray status --address 127.0.0.1:6379"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=180)
    shutil.rmtree(sockets, ignore_errors=True)
    assert done.returncode == 0, done.stderr[-3000:]
    trials = read_journal(tmp_path / "search" / FILE_NAME)
    assert len(trials) == 3
    assert len(trials[0].epochs) == 9
    assert all(trial.state in ("COMPLETE", "PRUNED", "FAIL") for trial in trials)
    assert "Active:" in done.stdout
