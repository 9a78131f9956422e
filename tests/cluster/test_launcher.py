"""The files for Ray's cluster launcher, by Ray's own schema and parsing, up to where a cloud would be asked."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import jsonschema
import pytest
import ray.autoscaler
import yaml
from ray.autoscaler._private.util import prepare_config, validate_config

LAUNCHER = Path(__file__).resolve().parents[2] / "cluster" / "launcher"
FILES = sorted(LAUNCHER.glob("*.yaml"))
CLOUDS = [path for path in FILES if path.stem in ("aws", "gcp")]
COMMANDS = (
    "initialization_commands", "setup_commands", "head_setup_commands", "worker_setup_commands",
    "head_start_ray_commands", "worker_start_ray_commands",
)  # fmt: skip


def read(path):
    return yaml.safe_load(path.read_text())


def name(path):
    return path.name


def test_there_is_a_file_for_each_place():
    assert [path.name for path in FILES] == ["aws.yaml", "gcp.yaml", "onprem.yaml"]


@pytest.mark.parametrize("path", FILES, ids=name)
def test_a_file_is_valid_by_rays_schema_and_to_ray_up(path):
    schema = json.loads((Path(ray.autoscaler.__file__).parent / "ray-schema.json").read_text())
    config = read(path)
    jsonschema.validate(config, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**config, "max_workers": "many"}, schema)
    prepared = prepare_config(config)
    validate_config(prepared)
    assert prepared["cluster_name"] == "fer-search"


@pytest.mark.parametrize("path", CLOUDS, ids=name)
def test_in_a_cloud_the_head_stays_without_trials_and_workers_with_gpus_come_from_none_on_spot_machines(path):
    config = prepare_config(read(path))
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    assert head["resources"]["CPU"] == head["resources"]["GPU"] == 0
    assert "spot" not in json.dumps(head["node_config"]).lower()
    assert config["provider"]["cache_stopped_nodes"] is False
    for worker in types.values():
        assert worker["min_workers"] == 0 < worker["max_workers"] <= config["max_workers"]
        assert worker["resources"]["GPU"] >= 1
        assert "spot" in json.dumps(worker["node_config"]).lower()
    gpus = {worker["resources"]["GPU"] for worker in types.values()}
    assert gpus == {1, 8}


@pytest.mark.parametrize("path", FILES, ids=name)
def test_all_nodes_share_a_directory_a_token_and_the_script_that_starts_them(path):
    config = read(path)
    for role in ("head", "worker"):
        *before, last = config[f"{role}_start_ray_commands"]
        assert any("/mnt/fer_search" in command for command in before)
        assert f"cluster/ray_node.sh {role}" in last
        assert "environment.sh" in last
    assert "~/.fer_search/ray_token" in config["file_mounts"]
    environment = (LAUNCHER / "environment.sh").read_text()
    assert re.search(r"RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH=\S*/ray_token", environment)


@pytest.mark.parametrize("path", FILES, ids=name)
def test_no_secret_is_in_a_file(path):
    assert not re.search(r"(?i)password|secret|aws_access|AKIA|private_key:\s*-----", path.read_text())


@pytest.mark.skipif(not shutil.which("shellcheck"), reason="shellcheck is not installed")
@pytest.mark.parametrize("path", FILES, ids=name)
def test_shellcheck_has_nothing_to_say_about_the_commands(path):
    config = read(path)
    commands = [command for key in COMMANDS for command in config[key]]
    assert len(commands) >= 8
    for command in commands:
        # SC1090, SC1091: what is sourced is on the node; SC2016: a login shell is to expand that one.
        words = ["shellcheck", "--shell=bash", "--exclude=SC1090,SC1091,SC2016,SC2088", "-"]
        done = subprocess.run(words, input=command, capture_output=True, text=True)
        assert done.returncode == 0, f"{command}\n{done.stdout}"
