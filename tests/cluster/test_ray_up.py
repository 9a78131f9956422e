"""`ray up` with the shipped on-premise file, for real."""

import shutil
import sys
from pathlib import Path

import pytest
from hosts import can_isolate, isolated

HERE = Path(__file__).parent
PROGRAMS = ("ssh", "sshd", "rsync", "ssh-keygen", "pgrep")
MISSING = [program for program in PROGRAMS if not shutil.which(program, path="/usr/sbin:/usr/bin:/sbin:/bin")]
pytestmark = [
    pytest.mark.cluster,
    pytest.mark.long,
    pytest.mark.skipif(not can_isolate(), reason="network namespaces (unshare and ip, as root) are not to be had"),
    pytest.mark.skipif(bool(MISSING), reason=f"not installed: {', '.join(MISSING)}"),
]


def test_ray_up_starts_three_machines_and_a_search_outlives_their_head(tmp_path):
    done = isolated([sys.executable, HERE / "ray_up.py", tmp_path], seconds=900)
    logs = [f"{log.name}:\n{log.read_text(errors='replace')[-2500:]}" for log in sorted(tmp_path.glob("*.log"))]
    assert done.returncode == 0, "\n".join([*logs, done.stdout[-3000:], done.stderr[-3000:]])
