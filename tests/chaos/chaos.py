"""A search while whatever it consists of is killed at random moments; to be run in namespaces of its own.

    unshare --net --pid --mount --uts --fork --mount-proc --kill-child python chaos.py DIRECTORY --kills 20

Two Ray nodes, an MLflow server on SQLite and the driver are started. SIGKILL hits the driver, a worker with a trial,
the raylet of the second node or the MLflow server, in random order, and what was killed is started again; the search
goes on through `fer-search resume`. Processes write to DIRECTORY/*.log, each kill is a line of DIRECTORY/kills.txt.
"""

import argparse
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from itertools import cycle, islice
from pathlib import Path

from fer_search.journal import FILE_NAME, read_events

SPACE = Path(__file__).resolve().parents[2] / "search_spaces" / "smoke.toml"
NAME = "chaos"
RECIPE = ("fit_fraction=0.2", "validation_fraction=0.05", "batch_size=16")
HEAD, SECOND, SERVER_PORT = "127.0.0.1", "127.0.0.2", 5000
ADDRESS = f"{HEAD}:6379"
ISOLATED = ["unshare", "--net", "--pid", "--mount", "--uts", "--fork", "--mount-proc", "--kill-child"]
TARGETS = ("driver", "worker", "raylet", "server")


class Chaos:
    """The processes of a search on a cluster, and the ways to kill them."""

    def __init__(self, directory: Path, sockets: str, arguments: argparse.Namespace) -> None:
        self.directory, self.sockets, self.arguments = directory, sockets, arguments
        self.rng = random.Random(arguments.seed)
        self.journal = directory / NAME / FILE_NAME
        self.environment = {**os.environ, "RAY_AUTH_MODE": "disabled", "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
        self.server = self.driver = None

    def run(self) -> None:
        """Run the search to its end with so many kills in between."""
        subprocess.run(["ip", "link", "set", "lo", "up"], check=True)
        self.ray("start", "--head", f"--node-ip-address={HEAD}", "--port=6379", "--num-cpus=1",
                 "--include-dashboard=false", f"--temp-dir={self.sockets}")  # fmt: skip
        self.start_second_node()
        self.start_server()
        self.start_driver()
        todo = [*islice(cycle(TARGETS), self.arguments.kills)]
        self.rng.shuffle(todo)
        for target in todo:
            if not self.wait_for_epochs(self.num_epochs() + self.rng.choice((1, 1, 2))):
                break
            time.sleep(self.rng.uniform(0, 0.5))
            self.say(f"{target} after {self.num_epochs()} epochs")
            getattr(self, f"kill_{target}")()
        while self.driver.wait() != 0:
            self.start_driver()
        self.server.kill()

    def num_epochs(self) -> int:
        return sum(event["event"] == "epoch_ended" for event, _ in read_events(self.journal))

    def wait_for_epochs(self, count: int) -> bool:
        """Wait for epochs and return whether the search still runs; a driver that died with its cluster is resumed."""
        while self.num_epochs() < count:
            code = self.driver.poll()
            if code == 0:
                return False
            if code is not None:
                self.say(f"the driver ended with code {code}")
                self.start_driver()
            time.sleep(0.05)
        return True

    def start_driver(self) -> None:
        command = ["resume", NAME]
        if not self.journal.exists():
            options = ("--trials", self.arguments.trials, "--max-concurrent", self.arguments.max_concurrent)
            uri = f"http://{HEAD}:{SERVER_PORT}"
            recipe = (*RECIPE, f"epochs={self.arguments.epochs}")
            command = ["search", SPACE, *recipe, "--name", NAME, "--address", ADDRESS, "--tracking-uri", uri, *options]
        self.driver = self.start("driver", sys.executable, "-m", "fer_search", *command, "--runs", self.directory)

    def kill_driver(self) -> None:
        self.driver.kill()
        self.driver.wait()
        self.start_driver()

    def kill_worker(self) -> None:
        while self.driver.poll() is None:
            if found := processes(lambda words: words[0].startswith(b"ray::") and b"Trainable" in words[0]):
                os.kill(self.rng.choice(found), signal.SIGKILL)
                return
            time.sleep(0.05)

    def kill_raylet(self) -> None:
        address = f"--node_ip_address={SECOND}".encode()
        for pid in processes(lambda words: words[0].endswith(b"/raylet") and address in words):
            os.kill(pid, signal.SIGKILL)
        self.start_second_node()

    def start_second_node(self) -> None:
        self.ray("start", f"--address={ADDRESS}", f"--node-ip-address={SECOND}", "--num-cpus=1")

    def kill_server(self) -> None:
        os.killpg(self.server.pid, signal.SIGKILL)
        time.sleep(self.rng.uniform(0, 3))
        self.start_server()

    def start_server(self) -> None:
        options = ["--backend-store-uri", f"sqlite:///{self.directory}/mlflow.db", "--host", HEAD]
        options += ["--artifacts-destination", self.directory / "artifacts", "--port", SERVER_PORT, "--workers", "1"]
        self.server = self.start("server", sys.executable, "-m", "mlflow", "server", *options)

    def ray(self, *arguments: str) -> None:
        ray = Path(sys.executable).with_name("ray")
        with (self.directory / "ray.log").open("a") as log:
            subprocess.run([ray, *arguments], check=True, env=self.environment, stdout=log, stderr=log)

    def start(self, name: str, *command: object) -> "subprocess.Popen[bytes]":
        with (self.directory / f"{name}.log").open("a") as log:
            return subprocess.Popen(
                list(map(str, command)), env=self.environment, stdout=log, stderr=log, start_new_session=True
            )

    def say(self, line: str) -> None:
        with (self.directory / "kills.txt").open("a") as file:
            file.write(f"{line}\n")


def can_isolate(*needed: str) -> bool:
    """Return whether there can be namespaces here, in which a command that is `needed` works: by default, a network."""
    if not shutil.which("unshare") or not shutil.which("ip"):
        return False
    command = needed or ("ip", "link", "set", "lo", "up")
    return subprocess.run([*ISOLATED, *command], capture_output=True).returncode == 0


def isolated(command: list[object], *, seconds: int) -> "subprocess.CompletedProcess[str]":
    """Run a command in namespaces of its own, in which nothing of it survives its end."""
    words = [*ISOLATED, "timeout", "-s", "KILL", str(seconds), *map(str, command)]
    return subprocess.run(words, capture_output=True, text=True)


def processes(chosen: Callable[[list[bytes]], bool]) -> list[int]:
    """Return the ids of the processes whose command lines are chosen, in this namespace."""
    found = []
    for process in Path("/proc").glob("[0-9]*"):
        try:
            words = (process / "cmdline").read_bytes().split(b"\0")
        except OSError:
            continue  # it has just ended
        if chosen(words):
            found.append(int(process.name))
    return sorted(found)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("directory", type=Path)
    parser.add_argument("--kills", type=int, required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--trials", type=int, default=6)
    parser.add_argument("--epochs", type=int, default=9)
    parser.add_argument("--max-concurrent", type=int, default=2)
    arguments = parser.parse_args()
    sockets = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path has room for 107 bytes
    try:
        Chaos(arguments.directory.resolve(), sockets, arguments).run()
    finally:
        shutil.rmtree(sockets, ignore_errors=True)


if __name__ == "__main__":
    main()
