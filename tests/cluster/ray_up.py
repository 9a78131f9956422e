"""The shipped on-premise file, brought up by `ray up` over ssh on three machines, used, broken and taken down.

Run in namespaces of its own: ray_up.py DIRECTORY. This process is the laptop.
"""

import hashlib
import json
import re
import secrets
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).parent
sys.path[:0] = [str(HERE), str(HERE.parent / "chaos")]

from hosts import Host, make_network
from services import BIN, ENVIRONMENT, ROOT, until

from fer_search.journal import FILE_NAME, read_events, read_journal

HOME = Path("/run/researcher")
SECRETS = (HOME / ".fer_search" / "ray_token", HOME / ".fer_search" / "cluster.env")
TOKEN, PASSWORD = secrets.token_hex(32), "a-password-that-is-nowhere"
FILE = ROOT / "cluster" / "launcher" / "onprem.yaml"
NAME = "smoke"
RECIPE = ("epochs=3", "fit_fraction=0.2", "validation_fraction=0.05", "batch_size=16")
SHARED = Path("/mnt/fer_search")
DASHBOARD = "http://127.0.0.1:8265"


def main(directory: Path) -> None:
    shadow_the_machine(directory)
    make_network()
    make_home()
    keys = make_keys(directory)
    hosts = [start_host(number, name, directory, keys) for number, name in enumerate(("head", "one", "two"))]
    cluster = own_values(directory, hosts, keys)
    ray(directory, "up", "--yes", cluster)
    subprocess.Popen([BIN / "ray", "dashboard", cluster], env=environment(), stdout=subprocess.DEVNULL)
    wait_for_nodes(3)
    check_secrets(hosts)
    command = ["search", ROOT / "search_spaces" / "smoke.toml", "--name", NAME, "--trials", 3, *RECIPE]
    submitted = fer_search("submit", "--no-follow", *command)
    assert submitted.returncode == 0, submitted.stdout + submitted.stderr
    until(lambda: num_epochs() >= 1, what="an epoch")
    hosts[0].run("sh", "-c", "kill -9 $(pgrep gcs_server)", check=True)
    say(f"the head is gone after {num_epochs()} epochs")
    ray(directory, "up", "--yes", cluster)
    wait_for_nodes(3)
    say("resume")
    resumed = fer_search("submit", "resume", NAME)
    assert resumed.returncode == 0, resumed.stdout + resumed.stderr
    trials = read_journal(SHARED / "runs" / NAME / FILE_NAME)
    assert len(trials) == 3
    assert all(trial.ended for trial in trials)
    say("down")
    ray(directory, "down", "--yes", cluster)
    until(lambda: not processes_of_ray(hosts), what="the end of Ray everywhere")


def check_secrets(hosts: list[Host]) -> None:
    """What `ray up` copied is for its owner alone, and no process shows it."""
    for host in hosts:
        modes = host.run("stat", "-c", "%a %n", *SECRETS, capture_output=True, check=True).stdout.splitlines()
        assert [mode.split()[0] for mode in modes] == ["600", "600"], modes
        shown = host.command_lines()
        assert processes_of_ray([host])
        assert not [line for line in shown if TOKEN in line or PASSWORD in line]


def processes_of_ray(hosts: list[Host]) -> list[str]:
    """Return the command lines of Ray's own processes; of one that has ended, ps shows the name alone."""
    return [line for host in hosts for line in host.command_lines() if re.search("/(gcs_server|raylet) ", line)]


def wait_for_nodes(count: int) -> None:
    until(lambda: num_nodes() == count, what=f"{count} nodes")
    say(f"{count} nodes")


def say(line: str) -> None:
    print(time.strftime("%X"), line, flush=True)


def num_epochs() -> int:
    return sum(event["event"] == "epoch_ended" for event, _ in read_events(SHARED / "runs" / NAME / FILE_NAME))


def shadow_the_machine(directory: Path) -> None:
    """Give all machines the shared directory and a user, and each a home and a place for Ray of its own."""
    Path("/tmp/ray").mkdir(exist_ok=True)
    users = directory / "passwd"
    known = Path("/etc/passwd").read_text().splitlines()[1:]
    users.write_text("\n".join([f"root:x:0:0:root:{HOME}:/bin/bash", *known]) + "\n")
    for words in (
        ["mount", "--bind", users, "/etc/passwd"],
        ["mount", "-t", "tmpfs", "tmpfs", SHARED.parent],
        ["mkdir", SHARED],
        ["mount", "--bind", directory, SHARED],
        *private_mounts(),
    ):
        subprocess.run(list(map(str, words)), check=True)


def private_mounts() -> list[list[str]]:
    return [["mount", "-t", "tmpfs", "tmpfs", path] for path in ("/tmp/ray", "/run")]


def make_home() -> None:
    """Make what the README asks for on the laptop."""
    credentials = f"MLFLOW_TRACKING_USERNAME=somebody\nMLFLOW_TRACKING_PASSWORD={PASSWORD}\n"
    for path, text in zip(SECRETS, (TOKEN, credentials), strict=True):
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch(mode=0o600)
        path.write_text(text)


def make_keys(directory: Path) -> Path:
    keys = directory / "ssh"
    keys.mkdir(mode=0o700)
    for name in ("host", "user"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", keys / name], check=True)
    return keys


def start_host(number: int, name: str, directory: Path, keys: Path) -> Host:
    """Start a machine that has the project's environment already and lets the user in by ssh."""
    host = Host(number, name)
    for words in private_mounts():
        host.run(*words, check=True)
    environment = HOME / "fer_search" / ".venv"
    host.run("mkdir", "-p", environment, "/run/sshd", check=True)
    host.run("ln", "-s", *Path(sys.prefix).glob("[blp]*"), environment, check=True)
    host.run("tee", environment / "installed", input=installed(), stdout=subprocess.DEVNULL, check=True)
    host.run("touch", HOME / ".bashrc", check=True)
    options = {
        "HostKey": keys / "host",
        "AuthorizedKeysFile": keys / "user.pub",
        "PermitRootLogin": "yes",
        "StrictModes": "no",
        "UsePAM": "no",
        "PidFile": "none",
        "LogLevel": "VERBOSE",
    }
    words = [word for key, value in options.items() for word in ("-o", f"{key}={value}")]
    host.start(directory / f"sshd_{name}.log", "/usr/sbin/sshd", "-D", "-e", "-f", "/dev/null", *words)
    return host


def installed() -> str:
    """Return what install.sh leaves behind, so that it finds the environment up to date."""
    files = [ROOT / "pyproject.toml", ROOT / "cluster" / "constraints.txt"]
    return hashlib.sha256(b"".join(path.read_bytes() for path in files) + b"\n").hexdigest() + "  -\n"


def own_values(directory: Path, hosts: list[Host], keys: Path) -> Path:
    """Return the shipped file with its values edited, as a user would."""
    text = FILE.read_text()
    for old, new in (
        ("192.0.2.10", hosts[0].address),
        ("[192.0.2.11, 192.0.2.12]", json.dumps([host.address for host in hosts[1:]])),
        ("user researcher", "user root"),
        ("~/.ssh/fer_search", str(keys / "user")),
    ):
        assert text.count(old) == 1
        text = text.replace(old, new)
    path = directory / "onprem.yaml"
    path.write_text(text)
    return path


def environment() -> dict[str, str]:
    return {
        **ENVIRONMENT,
        "HOME": str(HOME),
        "RAY_API_SERVER_ADDRESS": DASHBOARD,
        "FER_SEARCH_RUNS": str(SHARED / "runs"),
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(SECRETS[0]),
    }


def ray(directory: Path, *arguments: object) -> None:
    with (directory / "ray_up.log").open("a") as log:
        words = [BIN / "ray", *map(str, arguments)]
        subprocess.run(words, env=environment(), cwd=ROOT, stdout=log, stderr=log, check=True)


def fer_search(*arguments: object) -> "subprocess.CompletedProcess[str]":
    words = [BIN / "fer-search", *map(str, arguments)]
    return subprocess.run(words, env=environment(), cwd=ROOT, capture_output=True, text=True)


def num_nodes() -> int:
    """Return how many nodes pass the doctor's checks."""
    done = fer_search("doctor", "--data", "synthetic", "--json")
    return len(json.loads(done.stdout)["nodes"]) if done.returncode == 0 else 0


if __name__ == "__main__":
    main(Path(sys.argv[1]).resolve())
