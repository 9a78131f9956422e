"""Machines of a network on this one: namespaces joined by a bridge, each with its own processes, network and mounts.

To be used in a process that has network and process namespaces of its own already, so that nothing outlives it:

    unshare --net --pid --mount --uts --fork --mount-proc --kill-child python scenario.py
"""

import os
import signal
import subprocess
import time
from pathlib import Path

from chaos import ISOLATED

BRIDGE, OUTSIDE = "fer0", "10.77.0.1"
MAKE_BRIDGE = ("ip", "link", "add", BRIDGE, "type", "bridge")
"""What must work for there to be hosts."""


def make_network() -> None:
    """Make the network that the hosts join; this process is at OUTSIDE."""
    for words in (
        ["ip", "link", "set", "lo", "up"],
        MAKE_BRIDGE,
        ["ip", "address", "add", f"{OUTSIDE}/24", "dev", BRIDGE],
        ["ip", "link", "set", BRIDGE, "up"],
    ):
        subprocess.run(words, check=True)


class Host:
    """A machine of the network, from its start to `kill`."""

    def __init__(self, number: int, name: str) -> None:
        self.name, self.address = name, f"10.77.0.{10 + number}"
        self._link = f"veth{number}"
        # The first process of a machine has to take leave of orphans, which a shell does.
        boot = f"ip link set lo up && hostname {name} && while :; do sleep 1000; done"
        self._keeper = subprocess.Popen([*ISOLATED, "bash", "-c", boot])
        self._init = self._first_process()
        inside = f"{self._link}i"
        for words in (
            ["ip", "link", "add", self._link, "type", "veth", "peer", "name", inside, "netns", str(self._init)],
            ["ip", "link", "set", self._link, "master", BRIDGE, "up"],
            [*self._enter, "ip", "address", "add", f"{self.address}/24", "dev", inside],
            [*self._enter, "ip", "link", "set", inside, "up"],
            [*self._enter, "ip", "route", "add", "default", "via", OUTSIDE],
        ):
            subprocess.run(list(map(str, words)), check=True)

    @property
    def _enter(self) -> list[str]:
        return ["nsenter", "-t", str(self._init), "--net", "--pid", "--mount", "--uts"]

    def run(self, *command: object, **options) -> "subprocess.CompletedProcess[str]":
        """Run a command on this machine and wait for its end."""
        return subprocess.run([*self._enter, *map(str, command)], text=True, **options)

    def start(self, log: Path, *command: object, **options) -> "subprocess.Popen[bytes]":
        """Start a command on this machine; what it prints is appended to `log`."""
        with log.open("a") as file:
            return subprocess.Popen([*self._enter, *map(str, command)], stdout=file, stderr=file, **options)

    def command_lines(self) -> list[str]:
        """Return what `ps` shows of this machine's processes to anyone."""
        return self.run("ps", "-eo", "args", "-ww", capture_output=True).stdout.splitlines()

    def cut(self) -> None:
        """Take the machine off the network; its processes go on."""
        subprocess.run(["ip", "link", "set", self._link, "down"], check=True)

    def kill(self) -> None:
        """End everything on the machine at once."""
        os.kill(self._init, signal.SIGKILL)
        self._keeper.wait()

    def _first_process(self) -> int:
        children = Path(f"/proc/{self._keeper.pid}/task/{self._keeper.pid}/children")
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            for child in children.read_text().split():
                named = subprocess.run(["nsenter", "-t", child, "--uts", "hostname"], capture_output=True, text=True)
                if named.stdout.strip() == self.name:
                    return int(child)
            time.sleep(0.02)
        raise TimeoutError(f"{self.name} did not come up")
