"""What a cluster leans on, for real: an MLflow server with authentication on PostgreSQL, and a Ray node per host."""

import os
import secrets
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path

from hosts import OUTSIDE, Host

ROOT = Path(__file__).resolve().parents[2]
CLUSTER = ROOT / "cluster"
BIN = Path(sys.executable).parent
POSTGRES = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
AS_POSTGRES = ["setpriv", "--reuid=postgres", "--regid=postgres", "--clear-groups"]
DATABASE_PORT = 5433
USER, PASSWORD = "searcher", "a-password-that-is-nowhere"
NICENESS = {"RAY_worker_niceness": "5"}  # not 15: others wait for these trials; not 0: they wait for nodes to come up
ENVIRONMENT = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", **NICENESS}
PATIENCE = 300
"""Seconds to wait for anything, far more than it takes: two scenarios may share two busy cores."""


def until(condition: Callable[[], object], *, what: str) -> None:
    """Wait for a condition, or fail and say for what."""
    deadline = time.monotonic() + PATIENCE
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(f"{what}: not within {PATIENCE} s")
        time.sleep(0.1)


def start_mlflow(directory: Path) -> str:
    """Start PostgreSQL and the shipped MLflow server outside the hosts, and return the server's address."""
    data = Path(tempfile.mkdtemp(prefix="pg", dir="/tmp"))
    shutil.chown(data, "postgres")
    bin_directory = POSTGRES[-1]
    subprocess.run([*AS_POSTGRES, bin_directory / "initdb", "-D", data, "-A", "trust"], check=True, capture_output=True)
    command = [bin_directory / "postgres", "-D", data, "-p", str(DATABASE_PORT), "-k", data, "-h", "127.0.0.1"]
    with (directory / "postgres.log").open("w") as log:
        subprocess.Popen([*AS_POSTGRES, *command], stdout=log, stderr=log)
    database = {"PGHOST": "127.0.0.1", "PGPORT": str(DATABASE_PORT), "PGUSER": "postgres", "PGPASSWORD": "unused"}
    environment = {**ENVIRONMENT, **database}
    for name in ("mlflow", "mlflow_auth"):
        make = [bin_directory / "createdb", name]
        until(
            lambda make=make: subprocess.run(make, env=environment, capture_output=True).returncode == 0,
            what="PostgreSQL",
        )
    environment |= {
        "ARTIFACTS": str(directory / "artifacts"),
        "MLFLOW_AUTH_ADMIN_USERNAME": USER,
        "MLFLOW_AUTH_ADMIN_PASSWORD": PASSWORD,
        "MLFLOW_FLASK_SERVER_SECRET_KEY": secrets.token_hex(16),
        "MLFLOW_SERVER_ALLOWED_HOSTS": f"{OUTSIDE}:5000",
        "HOST": OUTSIDE,
        "WORKERS": "1",
    }
    with (directory / "mlflow.log").open("w") as log:
        subprocess.Popen([CLUSTER / "mlflow" / "serve.sh"], env=environment, stdout=log, stderr=log)
    address = f"http://{OUTSIDE}:5000"
    until(lambda: answer(f"{address}/health") == 200, what="MLflow")
    return address


def answer(url: str, headers: dict[str, str] | None = None) -> int | None:
    """Return the status that a server answers with; None where it does not."""
    try:
        with urllib.request.urlopen(urllib.request.Request(url, headers=headers or {}), timeout=10) as response:
            return response.status
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return None


def make_token(directory: Path) -> Path:
    """Make the token of a cluster."""
    path = directory / "token"
    path.touch(mode=0o600)
    path.write_text(secrets.token_hex(32))
    return path


def start_node(host: Host, directory: Path, token: Path, *role: str, cpus: int, disk: str | None = None) -> None:
    """Start Ray on a host with the shipped script: `head`, or `worker` and the head's address.

    With `disk`, the host has only so much of its own for Ray.
    """
    sockets = tempfile.mkdtemp(prefix="ray", dir="/tmp")  # a socket's path has room for 107 bytes
    if disk is not None:
        host.run("mount", "-t", "tmpfs", "-o", f"size={disk}", "tmpfs", sockets, check=True)
    host.sockets = Path(sockets)
    environment = {
        **ENVIRONMENT,
        "NODE_ADDRESS": host.address,
        "RAY_AUTH_TOKEN_PATH": str(token),
        "MLFLOW_TRACKING_USERNAME": USER,
        "MLFLOW_TRACKING_PASSWORD": PASSWORD,
        "FER_SEARCH_CACHE": str(directory / f"cache_{host.name}"),
    }
    script = CLUSTER / "ray_node.sh"
    options = [f"--num-cpus={cpus}", f"--temp-dir={sockets}"]
    host.start(_log(host, directory), script, *role, *options, env=environment)


def wait_for_dashboard(head: Host) -> None:
    """Wait until the head takes jobs."""
    until(lambda: ":8265" in head.run("ss", "-ltn", capture_output=True).stdout, what="the dashboard")


def wait_until_up(host: Host, directory: Path) -> None:
    """Wait until Ray says on a host that it runs there."""
    until(lambda: "Ray runtime started" in _log(host, directory).read_text(), what=f"Ray on {host.name}")


def _log(host: Host, directory: Path) -> Path:
    return directory / f"{host.name}.log"


def fer_search(host: Host, token: Path, *arguments: object) -> "subprocess.CompletedProcess[str]":
    """Run a command of ours on a host, as through a tunnel to the head's dashboard if it is the head."""
    return host.run(
        BIN / "fer-search", *arguments, env={**ENVIRONMENT, "RAY_AUTH_TOKEN_PATH": str(token)}, capture_output=True
    )
