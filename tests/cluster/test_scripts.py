"""The shell scripts for clusters."""

import os
import shutil
import subprocess
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
