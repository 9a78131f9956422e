"""The node types of the AWS file, started and given back by Ray's autoscaler, with Ray's stand-ins for machines.

Run in namespaces of its own: autoscale.py DIRECTORY. Only the provider is another one than on AWS, and the idle time is
shorter. A GPU is a number here: tasks ask for it; the search's trials, which would use it, ask for CPUs alone.
"""

import json
import os
import re
import signal
import subprocess
import sys
import tempfile
from collections import Counter
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chaos")]

from chaos import processes
from services import BIN, CLUSTER, ENVIRONMENT, ROOT, make_token, until

DIRECTORY = Path(sys.argv[1]).resolve()
TOKEN = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN_PATH": str(make_token(DIRECTORY))}
os.environ |= TOKEN  # Ray reads it when it is imported

import ray
from launcher import LAUNCHER, prepared

from fer_search.journal import FILE_NAME, read_events, read_journal
from fer_search.tuning.connection import Resources, default_gpus, resource_problems

ADDRESS = "127.0.0.1:6379"
HEAD_ID, FAKE_HEAD = "f" * 51 + "00000", "ray.head.default"  # as Ray's stand-ins have it
NAME = "scaled"
RECIPE = ("epochs=4", "fit_fraction=0.5", "validation_fraction=0.05", "batch_size=16")
TRIAL = ("--cpus-per-trial", "2", "--gpus-per-trial", "0")


def main(directory: Path) -> None:
    subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
    sockets = start_head(directory)
    ray.init(ADDRESS, log_to_driver=False, logging_level="CRITICAL")
    check_that_what_fits_is_known_before_there_is_a_machine()
    check_that_tasks_start_machines_that_leave_again(sockets)
    check_that_too_much_is_refused(directory)
    run_search_while_a_machine_is_lost(directory, sockets)
    until(lambda: machines() == [], what="no machine after the search")


def start_head(directory: Path) -> Path:
    """Start the head as `ray up` does, with the shipped node types, and return where its logs are."""
    config = prepared(LAUNCHER / "aws.yaml")
    config["idle_timeout_minutes"] = 0.05
    config["provider"] = {
        "type": "external",
        "module": "ray.autoscaler._private.fake_multi_node.node_provider.FakeMultiNodeProvider",
        "head_node_id": HEAD_ID,
        "gcs_address": ADDRESS,
        "launch_multiple": True,
        "use_node_id_as_ip": True,
        "disable_node_updaters": True,
        "disable_launch_config_check": True,
    }
    config["available_node_types"][FAKE_HEAD] = config["available_node_types"].pop(config["head_node_type"])
    config["head_node_type"] = FAKE_HEAD
    for mounted in ("file_mounts", "auth"):
        config[mounted] = {}
    path = directory / "autoscaling.json"
    path.write_text(json.dumps(config))
    environment = {
        **ENVIRONMENT,
        **TOKEN,
        "NODE_ADDRESS": "127.0.0.1",
        "DETACHED": "1",
        "AUTOSCALER_UPDATE_INTERVAL_S": "1",
        "RAY_FAKE_CLUSTER": "1",
        "RAY_enable_autoscaler_v2": "1",
        "RAY_CLOUD_INSTANCE_ID": HEAD_ID,
    }
    sockets = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path has room for 107 bytes
    script = [CLUSTER / "ray_node.sh", "head", "--num-cpus=0", f"--temp-dir={sockets}", f"--autoscaling-config={path}"]
    with (directory / "head.log").open("w") as log:
        subprocess.run(script, env=environment, check=True, stdout=log, stderr=log)
    return Path(sockets)


def machines() -> list[float]:
    """Return the GPUs of each machine that is up beside the head."""
    return [node["Resources"]["GPU"] for node in ray.nodes() if node["Alive"] and node["NodeID"] != HEAD_ID]


def launched(sockets: Path) -> dict[str, int]:
    """Return how many machines of each type the autoscaler has asked for so far."""
    log = (sockets / "session_latest" / "logs" / "monitor.log").read_text()
    counts: Counter[str] = Counter()
    for count, kind in re.findall(r"Launched (\d+) nodes of type (\w+)", log):
        counts[kind] += int(count)
    return dict(counts)


def check_that_what_fits_is_known_before_there_is_a_machine() -> None:
    assert machines() == []
    assert resource_problems(Resources(cpus=1, gpus=16.0)) != []
    assert resource_problems(Resources(cpus=500)) != []
    assert resource_problems(Resources(cpus=2, gpus=0.5)) == []
    assert default_gpus(ADDRESS) == 1.0
    until(lambda: machines() == [], what="no machine that was only asked about")
    say("what fits is known")


def check_that_tasks_start_machines_that_leave_again(sockets: Path) -> None:
    before = launched(sockets)

    @ray.remote(num_cpus=2, num_gpus=0.5)
    def where(seconds):
        import time

        time.sleep(seconds)
        return ray.get_runtime_context().get_node_id()

    tasks = [where.remote(5) for _ in range(3)]
    assert len(set(ray.get(tasks, timeout=120))) == 2
    assert launched(sockets).keys() == {"l4"}, "not the type of the highest priority"
    assert sum(launched(sockets).values()) - sum(before.values()) in (2, 3), "one too many at the most"
    until(lambda: machines() == [], what="no machine without tasks")
    say("tasks ran on two machines, which are gone")

    @ray.remote(num_cpus=2, num_gpus=4)
    def large():
        return machines()

    assert ray.get(large.remote(), timeout=120) == [8]
    until(lambda: machines() == [], what="no machine without tasks")


def search(*options: object) -> list[object]:
    space = ROOT / "search_spaces" / "smoke.toml"
    return [BIN / "fer-search", "search", space, "--name", NAME, "--address", ADDRESS, *options]


def check_that_too_much_is_refused(directory: Path) -> None:
    command = search("--gpus-per-trial", "16", "--runs", directory, *RECIPE)
    done = subprocess.run(list(map(str, command)), env={**ENVIRONMENT, **TOKEN}, capture_output=True, text=True)
    assert done.returncode == 2, done.stderr
    assert "must fit on a node that is up or can be started" in done.stderr, done.stderr
    assert not (directory / NAME).exists()


def run_search_while_a_machine_is_lost(directory: Path, sockets: Path) -> None:
    assert machines() == []
    before = sum(launched(sockets).values())
    journal = directory / NAME / FILE_NAME
    command = search("--trials", 6, "--max-concurrent", 3, *TRIAL, "--runs", directory, *RECIPE)
    with (directory / "search.log").open("w") as log:
        running = subprocess.Popen(list(map(str, command)), env={**ENVIRONMENT, **TOKEN}, stdout=log, stderr=log)

    def training():
        assert running.poll() is None, "the search ended too early"
        return processes(lambda words: words[0].startswith(b"ray::") and b"Trainable.train" in words[0])

    until(lambda: sum(launched(sockets).values()) == before + 2, what="all machines asked for")
    assert not any(trial.epochs for trial in read_journal(journal)), "one machine was waited for before the next"
    until(lambda: len(machines()) == 2 and len(training()) == 3, what="three trials on two machines")
    raylet = int(Path(f"/proc/{training()[0]}/stat").read_text().rsplit(")")[1].split()[1])
    os.kill(raylet, signal.SIGKILL)
    say("a machine is lost")
    assert running.wait() == 0
    ended = read_journal(journal)
    assert len(ended) == 6
    assert {trial.state for trial in ended} <= {"COMPLETE", "PRUNED"}
    retried = [event for event, _ in read_events(journal) if event["event"] == "trial_retried"]
    assert retried
    assert all(event.get("node_lost") for event in retried), retried


def say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    main(DIRECTORY)
