"""The connection to Ray: a cluster that runs somewhere, or an embedded one; and what its nodes can hold."""

import logging
import os
import secrets
import signal
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass

import ray
from ray._private.state import state as cluster_state

from fer_search.errors import InvalidInput, problem

REACH_SECONDS = 5.0
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True)
class Resources:
    """What one trial occupies, and how many trials run at once at the most (0: as many as fit)."""

    cpus: int = 1
    gpus: float = 0.0
    max_concurrent: int = 0


def num_slots(resources: Resources) -> int:
    """Return how many trials fit at once on the connected cluster as it is now.

    Where no nodes come and go, Tune has to be told: it asks for one trial more than fits, so that an autoscaler sees
    the demand, and that one would be suggested too early.
    """
    return sum(_room(node, resources) for node in live_nodes())


def check_resources(resources: Resources) -> None:
    """Raise InvalidInput if no node of the connected cluster has what one trial asks for; Ray would wait for ever."""
    if found := resource_problems(resources):
        raise InvalidInput([problem("resources", *each) for each in found])


def resource_problems(resources: Resources) -> list[tuple[str, str, object]]:
    """Return why no node that is there, or that an autoscaler may start, can run a trial, as key, rule and value."""
    nodes = [*live_nodes(), *startable_nodes()]
    asked = {"CPU": float(resources.cpus), "GPU": resources.gpus}
    if any(all(node.get(kind, 0.0) >= amount for kind, amount in asked.items()) for node in nodes):
        return []
    most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in asked}
    problems: list[tuple[str, str, object]] = [
        (f"{kind.lower()}s per trial", f"must be at most {most[kind]:g}, the most of any node", amount)
        for kind, amount in asked.items()
        if amount > most[kind]
    ]
    return problems or [("trial", "must fit on one node", asked)]


def default_gpus(address: str) -> float:
    """Return how many GPUs a trial occupies on a cluster where nobody said so: one where any node has one."""
    with connected(address):
        return 1.0 if any(node.get("GPU", 0.0) >= 1 for node in (*live_nodes(), *startable_nodes())) else 0.0


def live_nodes() -> list[Mapping[str, float]]:
    """Return the resources of each node of the connected cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


def startable_nodes() -> list[Mapping[str, float]]:
    """Return the resources of each type of node that the autoscaler of the connected cluster, if any, may start.

    Ray has no public call for it; its own libraries read the same state.
    """
    config = cluster_state.get_cluster_config()
    groups = config.node_group_configs if config is not None else ()
    return [dict(group.resources) for group in groups if group.max_count != 0]


def _room(node: Mapping[str, float], resources: Resources) -> int:
    """Return how many trials fit on a node; a fraction of a GPU is never made up of two."""
    room = int(node.get("CPU", 0.0) // resources.cpus)
    if not resources.gpus:
        return room
    gpus = node.get("GPU", 0.0)
    return min(room, int(gpus // resources.gpus if resources.gpus >= 1 else gpus * (1 // resources.gpus)))


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start an embedded Ray; a connection that was there before is used."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the journal replaces csv, json and TensorBoard
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "3600")  # a search goes on from its journal, not from Ray's state
    os.environ.setdefault("TUNE_DISABLE_SIGINT_HANDLER", "1")  # signals are ours: see stopped_by_signals
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # they are on record
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield
        return
    if address:
        _check_reachable(address)
    elif not any(os.environ.get(variable) for variable in TOKEN_VARIABLES):
        # An embedded Ray listens on every interface of the machine and does what it is told; the token that it makes
        # for itself is left behind in a file that others may read.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
    logging.getLogger("ray.tune").setLevel(logging.CRITICAL)  # it calls a trial that was stopped an error
    handler = signal.getsignal(signal.SIGTERM)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except SystemExit:
        raise KeyboardInterrupt from None  # what Ray, while it starts, makes of SIGTERM
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        if address is None:
            raise
        rule = f"must be the address of a running Ray cluster ({error}; {hint})"
        raise InvalidInput(problem("command line", "address", rule, address)) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has taken it
    try:
        yield
    finally:
        ray.shutdown()


def _check_reachable(address: str) -> None:
    """Raise InvalidInput if nothing listens at `host:port`; Ray itself would try for minutes, then end the process."""
    host, _, port = address.removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        if address != "auto":
            raise InvalidInput(
                problem("command line", "address", "must be host:port, ray://host:port or auto", address)
            )
        return
    try:
        socket.create_connection((host, int(port)), timeout=REACH_SECONDS).close()
    except OSError as error:
        rule = f"must be the address of a running Ray cluster ({error})"
        raise InvalidInput(problem("command line", "address", rule, address)) from error
