"""Ray's autoscaler with the node types of the shipped file for AWS, on a provider whose machines are processes here.

Run in namespaces of its own: autoscale.py DIRECTORY.
"""

import json
import os
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
sys.path.insert(0, str(HERE))

import ray
import yaml
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_TYPE
from services import BIN, CLUSTER, ENVIRONMENT, ROOT, until

from fer_search.journal import FILE_NAME, read_journal
from fer_search.tuning.connection import Resources, default_gpus, live_nodes, resource_problems

HEAD_ID = f"{'f' * 51}00000"
ADDRESS = "127.0.0.1:6379"
IDLE_MINUTES = 0.2


def main(directory: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    shipped = yaml.safe_load((CLUSTER / "launcher" / "aws.yaml").read_text())
    start_head(directory, shipped)
    ray.init(address=ADDRESS, logging_level="ERROR", log_to_driver=False)
    assert gpu_nodes() == 0
    whether_a_trial_fits_is_known_before_there_is_a_node()
    tasks_bring_nodes_that_leave_again()
    a_search_brings_its_nodes(directory)


def start_head(directory: Path, shipped: dict) -> None:
    types = {
        name: {"resources": kind["resources"], "min_workers": kind.get("min_workers", 0), "node_config": {},
               "max_workers": min(kind.get("max_workers", 0), 2)}
        for name, kind in shipped["available_node_types"].items()
    }  # fmt: skip
    types[FAKE_HEAD_NODE_TYPE] = types.pop(shipped["head_node_type"])
    types["cpu"] = {"resources": {"CPU": 1}, "min_workers": 0, "max_workers": 2, "node_config": {}}
    config = {
        "cluster_name": shipped["cluster_name"],
        "max_workers": 4,
        "upscaling_speed": shipped["upscaling_speed"],
        "idle_timeout_minutes": IDLE_MINUTES,
        "provider": {
            "type": "external",
            "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
            "head_node_id": HEAD_ID,
            "gcs_address": ADDRESS,
            "launch_multiple": True,
            "use_node_id_as_ip": True,
            "disable_node_updaters": True,
            "disable_launch_config_check": True,
        },
        "auth": {},
        "available_node_types": types,
        "head_node_type": FAKE_HEAD_NODE_TYPE,
        "file_mounts": {}, "cluster_synced_files": [], "file_mounts_sync_continuously": False,
        "rsync_exclude": [], "rsync_filter": [], "docker": {},
        "initialization_commands": [], "setup_commands": [], "head_setup_commands": [], "worker_setup_commands": [],
        "head_start_ray_commands": [], "worker_start_ray_commands": [],
    }  # fmt: skip
    path = directory / "autoscaler.yaml"
    path.write_text(yaml.safe_dump(config))
    os.environ |= {
        "RAY_AUTH_MODE": "disabled",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
        "RAY_OVERRIDE_NODE_ID_FOR_TESTING": HEAD_ID,
    }
    sockets = tempfile.mkdtemp(prefix="ray", dir="/tmp")
    words = [BIN / "ray", "start", "--head", "--port=6379", "--node-ip-address=127.0.0.1", "--num-cpus=0",
             "--num-gpus=0", "--object-store-memory=200000000", "--include-dashboard=false",
             f"--temp-dir={sockets}", f"--autoscaling-config={path}"]  # fmt: skip
    environment = {**ENVIRONMENT, **{key: value for key, value in os.environ.items() if key.startswith("RAY_")}}
    with (directory / "head.log").open("w") as log:
        subprocess.run(list(map(str, words)), env=environment, stdout=log, stderr=log, check=True)
    for key in ("RAY_OVERRIDE_NODE_ID_FOR_TESTING", "RAY_CLOUD_INSTANCE_ID"):
        del os.environ[key]


def gpu_nodes() -> int:
    return sum(node.get("GPU", 0) > 0 for node in live_nodes())


def whether_a_trial_fits_is_known_before_there_is_a_node() -> None:
    assert resource_problems(Resources(cpus=2, gpus=0.5)) == []
    assert resource_problems(Resources(cpus=1, gpus=16.0)) != []
    assert resource_problems(Resources(cpus=500)) != []
    assert default_gpus(ADDRESS) == 1.0
    print("what fits is known", flush=True)


def tasks_bring_nodes_that_leave_again() -> None:
    until(lambda: gpu_nodes() == 0, seconds=120, what="no node that was only asked about")

    @ray.remote(num_cpus=2, num_gpus=0.5)
    def where() -> str:
        import time

        time.sleep(2)
        return ray.get_runtime_context().get_node_id()

    used = set(ray.get([where.remote() for _ in range(4)], timeout=120))
    print(f"4 half-GPU tasks ran on {len(used)} nodes", flush=True)
    assert gpu_nodes() >= len(used) >= 1
    until(lambda: gpu_nodes() == 0, seconds=180, what="nodes that leave when they idle")


def a_search_brings_its_nodes(directory: Path) -> None:
    """Nothing that a trial fits on is up when the search begins."""
    recipe = ("epochs=3", "fit_fraction=0.1", "validation_fraction=0.05", "batch_size=16")
    words = [
        "search",
        ROOT / "search_spaces" / "smoke.toml",
        "--name",
        "s",
        "--runs",
        directory,
        "--trials",
        3,
        *recipe,
    ]
    words += ["--address", ADDRESS, "--gpus-per-trial", 0]
    environment = {**ENVIRONMENT, "RAY_AUTH_MODE": "disabled"}
    done = subprocess.run(
        [BIN / "fer-search", *map(str, words)], env=environment, capture_output=True, text=True, timeout=300
    )
    assert done.returncode == 0, done.stderr[-3000:]
    trials = read_journal(directory / "s" / FILE_NAME)
    assert [trial.state for trial in trials].count("FAIL") == 0
    assert len(trials) == 3
    print(json.dumps({"trials": len(trials)}), flush=True)


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
