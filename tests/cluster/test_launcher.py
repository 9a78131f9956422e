"""The files of Ray's cluster launcher: valid by Ray's own schema and parsing, complete, closed, edited in one place."""

import hashlib
import json
import os
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from launcher import CLOUDS, EDIT, FILES, LAUNCHER, ROOT, commands, prepared, read
from ray.autoscaler._private.commands import _bootstrap_config
from ray.autoscaler._private.providers import _get_default_config
from ray.autoscaler._private.util import validate_config

SCHEMA = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
CONSTRAINTS = ROOT / "cluster" / "constraints.txt"
every_file = pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
every_cloud = pytest.mark.parametrize("path", CLOUDS, ids=lambda path: path.stem)


@every_file
def test_a_file_is_valid_by_rays_own_schema(path):
    jsonschema.validate(read(path), SCHEMA)


@every_file
def test_ray_up_accepts_a_file_before_it_asks_the_cloud(path):
    validate_config(prepared(path))


def test_the_on_premise_file_passes_all_that_ray_up_does_before_it_uses_ssh():
    resolved = _bootstrap_config(read(LAUNCHER / "onprem.yaml"), no_config_cache=True)
    (kind,) = resolved["available_node_types"].values()
    assert kind["min_workers"] == kind["max_workers"] == len(read(LAUNCHER / "onprem.yaml")["provider"]["worker_ips"])


@every_file
def test_no_command_is_left_to_rays_defaults(path):
    """They install a nightly Ray and open the dashboard to everyone."""
    config = read(path)
    assert commands(_get_default_config(config["provider"])).keys() <= commands(config).keys()


@every_file
def test_what_must_be_edited_stands_in_one_block_at_the_top(path):
    _, block, rest = re.split(r"^# -{4}.*\n", path.read_text(), flags=re.MULTILINE)
    assert list(yaml.safe_load(block)) == ["metadata"]
    assert EDIT in block
    assert EDIT not in rest
    assert not re.search(r"\d+\.\d+\.\d+\.\d+", rest)


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@every_file
def test_shellcheck_has_nothing_to_say_about_a_command(path, tmp_path):
    for key, words in commands(read(path)).items():
        for number, command in enumerate(words):
            script = tmp_path / f"{key}_{number}.sh"
            given = 'RAY_HEAD_IP=; USER=; SSH_CONNECTION=; : "$RAY_HEAD_IP" "$USER" "$SSH_CONNECTION"\n'
            script.write_text(f"#!/bin/bash\n{given}({command})\n")  # as Ray runs it
            ignored = "SC1090,SC2016"  # the file to source is on the node; what ~/.bashrc is to expand
            done = subprocess.run(["shellcheck", "-e", ignored, script], capture_output=True, text=True)
            assert done.returncode == 0, done.stdout


@every_file
def test_every_node_starts_ray_by_the_one_script_with_storage_and_token(path):
    config = read(path)
    for role in ("head", "worker"):
        storage, stop, start = config[f"{role}_start_ray_commands"]
        assert storage == config["metadata"]["storage"]
        assert storage.startswith("mountpoint -q /mnt/fer_search ||")
        assert stop.endswith("environment.sh && ray stop")
        assert "DETACHED=1 " in start
        assert f"~/fer_search/cluster/ray_node.sh {role}" in start
    assert config["head_start_ray_commands"][2].endswith(" --autoscaling-config=~/ray_bootstrap_config.yaml")
    assert config["worker_start_ray_commands"][2].endswith(' worker "$RAY_HEAD_IP"')


@every_file
def test_all_that_is_copied_is_there_and_what_a_node_needs_is_copied(path):
    mounts = read(path)["file_mounts"]
    assert all((ROOT / source).exists() for source in mounts.values() if not source.startswith("~"))
    for key, words in commands(read(path)).items():
        for name in re.findall(r"~/fer_search/([\w./]+)", " ".join(words)):
            assert (ROOT / name).exists() or name == ".venv", (key, name)
            assert any(f"~/fer_search/{name}".startswith(target) for target in mounts) or name == ".venv"
    for secret in ("ray_token", "cluster.env"):
        assert mounts[f"~/.fer_search/{secret}"] == f"~/.fer_search/{secret}"


@every_file
def test_a_node_gets_no_package_whose_version_is_open(path):
    pinned = {line.split("==")[0] for line in CONSTRAINTS.read_text().splitlines() if "==" in line}
    asked = re.findall(r"install\.sh ([\w-]+)", path.read_text())
    assert set(asked) <= pinned


@every_cloud
def test_the_head_runs_no_trial_and_workers_come_from_nothing(path):
    config = prepared(path)
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"] == {"CPU": 0}
    assert head["max_workers"] == 0
    for kind in types.values():
        assert kind["min_workers"] == 0
        assert 0 < kind["max_workers"] <= config["max_workers"]
        assert kind["resources"]["GPU"] >= 1
    assert len({kind["priority"] for kind in types.values()}) == len(types)
    assert 0 < config["idle_timeout_minutes"] <= 15
    assert config["provider"]["cache_stopped_nodes"] is False


def source_environment(home, **variables):
    command = f". {LAUNCHER / 'environment.sh'} && env"
    environment = {"PATH": os.environ["PATH"], "HOME": str(home), **variables}
    return subprocess.run(["bash", "-c", command], env=environment, capture_output=True, text=True)


@pytest.fixture
def home(tmp_path):
    (tmp_path / ".fer_search").mkdir()
    secrets = tmp_path / ".fer_search" / "cluster.env"
    secrets.write_text("MLFLOW_TRACKING_USERNAME=somebody\nMLFLOW_TRACKING_PASSWORD='a b'\n")
    secrets.chmod(0o600)
    return tmp_path


def test_a_nodes_environment_asks_for_the_token_and_knows_mlflow(home):
    done = source_environment(home, RAY_AUTH_MODE="disabled")
    found = dict(line.split("=", 1) for line in done.stdout.splitlines())
    assert found["RAY_AUTH_MODE"] == "token"
    assert found["RAY_AUTH_TOKEN_PATH"] == f"{home}/.fer_search/ray_token"
    assert found["FER_SEARCH_RUNS"] == "/mnt/fer_search/runs"
    assert (found["MLFLOW_TRACKING_USERNAME"], found["MLFLOW_TRACKING_PASSWORD"]) == ("somebody", "a b")
    assert found["PATH"].startswith(f"{home}/fer_search/.venv/bin:")


def test_a_password_that_others_may_read_is_refused(home):
    (home / ".fer_search" / "cluster.env").chmod(0o644)
    done = source_environment(home)
    assert done.returncode == 2
    assert "must be readable by its owner alone" in done.stderr


@pytest.fixture
def node(tmp_path):
    """A node with the project on it, and a python3 that only says that it was called."""
    for name in ("pyproject.toml", "cluster/constraints.txt", "cluster/launcher/install.sh"):
        (tmp_path / "fer_search" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "fer_search" / name)
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "python3").write_text("#!/bin/sh\necho Python 3.10.1\nexit 1\n")
    (tmp_path / "bin" / "python3").chmod(0o755)
    return tmp_path


def install(node, *packages):
    script = node / "fer_search" / "cluster" / "launcher" / "install.sh"
    environment = {"PATH": f"{node / 'bin'}:{os.environ['PATH']}"}
    return subprocess.run([script, *packages], env=environment, capture_output=True, text=True)


def test_an_environment_is_made_with_a_python_that_the_project_runs_on(node):
    done = install(node)
    assert done.returncode == 2
    assert "python3 must be 3.11 to 3.13, got Python 3.10.1" in done.stderr


def test_an_environment_that_an_image_brings_along_is_left_alone_until_the_versions_change(node):
    project = node / "fer_search"
    files = [project / "pyproject.toml", project / "cluster" / "constraints.txt"]
    made_of = b"".join(path.read_bytes() for path in files) + b"boto3\n"
    (project / ".venv").mkdir()
    (project / ".venv" / "installed").write_text(hashlib.sha256(made_of).hexdigest() + "  -\n")
    assert install(node, "boto3").returncode == 0
    assert install(node).returncode == 2, "other packages are asked for"
    files[1].write_text(files[1].read_text().replace("ray==2.60.0", "ray==2.61.0"))
    assert install(node, "boto3").returncode == 2
