"""A search on a Ray cluster that was there before it, in a network of its own so that no other Ray is touched."""

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import pytest
from toy import search_toy

from fer_search.errors import InvalidInput
from fer_search.journal import FILE_NAME, read_journal
from fer_search.tuning.connection import Resources

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


@pytest.mark.parametrize(
    ("address", "rule"),
    [("127.0.0.1:9", "must be the address of a running Ray cluster"), ("nowhere", "must be host:port")],
)
def test_an_address_where_no_cluster_answers_is_a_clear_error(tmp_path, address, rule):
    with pytest.raises(InvalidInput, match=rule):
        search_toy(tmp_path, 2, resources=Resources(), address=address)
