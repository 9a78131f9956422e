"""The connection to Ray: a cluster that runs somewhere, or an embedded one; and what its nodes can hold."""

import logging
import os
import secrets
import signal
import threading
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import cache
from typing import Any

import ray
from ray._private.worker import global_worker
from ray._raylet import AuthenticationTokenLoader  # type: ignore[attr-defined]  # compiled: its stub lacks it
from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.core.generated.autoscaler_pb2 import GetClusterStatusReply
from ray.util.placement_group import placement_group, remove_placement_group

from fer_search.errors import InvalidInput, first_line, problem
from fer_search.network import why_unreachable

logger = logging.getLogger(__name__)

AUTOSCALER_SECONDS = 60.0
AUTOSCALER_ROUNDS = 2
"""Rounds of Ray's autoscaler, after which what it says takes a new demand into account."""
MAX_STARTING = 100
"""How many workers are asked for at once: Tune by itself asks for one, and for the next when that one is up."""
TOKEN_VARIABLES = ("RAY_AUTH_TOKEN", "RAY_AUTH_TOKEN_PATH")


@dataclass(frozen=True)
class Resources:
    """What one trial occupies, and how many trials run at once at the most (0: as many as fit)."""

    cpus: int = 1
    gpus: float = 0.0
    max_concurrent: int = 0

    @property
    def bundle(self) -> dict[str, float]:
        """What one trial occupies, as Ray asks for it."""
        return {kind: float(each) for kind, each in (("CPU", self.cpus), ("GPU", self.gpus)) if each}

    def of(self, places: int) -> "Resources":
        """Return what a trial occupies that takes the places of so many on its GPU, at the most all of it."""
        return self if places == 1 else replace(self, gpus=min(1.0, self.gpus * places))

    @property
    def shares_gpu(self) -> bool:
        """Whether a trial has others beside it on its GPU, and would have more memory without them."""
        return 0 < self.gpus <= 0.5


def num_slots(resources: Resources) -> int:
    """Return how many trials fit at once on the connected cluster as it is now."""
    return sum(_room(node, resources) for node in live_nodes())


def check_resources(resources: Resources) -> None:
    """Raise InvalidInput if no node of the connected cluster has what one trial asks for; Ray would wait for ever."""
    if found := resource_problems(resources):
        raise InvalidInput([problem("resources", *each) for each in found])


def resource_problems(resources: Resources) -> list[tuple[str, str, object]]:
    """Return why no node that is there, or that an autoscaler may start, can run a trial, as key, rule and value."""
    nodes = live_nodes()
    asked = {"CPU": float(resources.cpus), "GPU": resources.gpus}
    if any(all(node.get(kind, 0.0) >= amount for kind, amount in asked.items()) for node in nodes):
        return []
    if is_autoscaler_v2(fetch_from_server=True):
        starts = _autoscaler_starts(resources)
        return [] if starts else [("trial", "must fit on a node that is up or can be started", asked)]
    most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in asked}
    problems: list[tuple[str, str, object]] = [
        (f"{kind.lower()}s per trial", f"must be at most {most[kind]:g}, the most of any node", amount)
        for kind, amount in asked.items()
        if amount > most[kind]
    ]
    return problems or [("trial", "must fit on one node", asked)]


def default_gpus(address: str, *, cpus: int = 1) -> float:
    """Return how many GPUs a trial occupies on a cluster where nobody said so: one where any node has, or may have."""
    with connected(address):
        if any(node.get("GPU", 0.0) >= 1 for node in live_nodes()):
            return 1.0
        return 1.0 if is_autoscaler_v2(fetch_from_server=True) and _autoscaler_starts(Resources(cpus, 1.0)) else 0.0


def live_nodes() -> list[Mapping[str, float]]:
    """Return the resources of each node of the connected cluster."""
    return [node["Resources"] for node in ray.nodes() if node["Alive"]]


@cache
def _autoscaler_starts(resources: Resources) -> bool:
    """Return whether the autoscaler has a type of node for a trial: it is asked with a reservation, which is withdrawn.

    No call of Ray's lists those types, but what none of them could serve is reported as infeasible, at the autoscaler's
    next round. That takes seconds, so the answer is kept for as long as the connection. (A task would ask the same, but
    to cancel one as it begins can end this process: a check of Ray's own fails.)
    """
    reservation = placement_group([resources.bundle])
    deadline, first = time.monotonic() + AUTOSCALER_SECONDS, _autoscaling_state().autoscaler_state_version
    try:
        while time.monotonic() < deadline:
            if reservation.wait(1.0):
                return True
            state = _autoscaling_state()
            infeasible = [each for gang in state.infeasible_gang_resource_requests for each in gang.requests]
            if any(dict(each.resources_bundle) == resources.bundle for each in infeasible):
                return False
            is_answer = state.autoscaler_state_version >= first + AUTOSCALER_ROUNDS
            if is_answer and (state.pending_instance_requests or state.pending_instances):
                return True
        return False
    finally:
        remove_placement_group(reservation)


def _autoscaling_state() -> Any:
    reply = GetClusterStatusReply()
    reply.ParseFromString(global_worker.gcs_client.get_cluster_status())
    return reply.autoscaling_state


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
    os.environ.setdefault("TUNE_MAX_PENDING_TRIALS_PG", str(MAX_STARTING))  # it asks for no more than there are places
    os.environ.setdefault("TUNE_PRINT_ALL_TRIAL_ERRORS", "0")  # they are on record
    os.environ.setdefault("RAY_AIR_NEW_OUTPUT", "0")  # a box that says nothing of a search
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield
        return
    _autoscaler_starts.cache_clear()
    if address:
        _check_reachable(address)
    elif not any(os.environ.get(variable) for variable in TOKEN_VARIABLES):
        # An embedded Ray listens on every interface of the machine and does what it is told; the token that it makes
        # for itself is left behind in a file that others may read.
        os.environ["RAY_AUTH_TOKEN"] = secrets.token_hex(32)
        AuthenticationTokenLoader.instance().reset_cache()  # of an earlier connection of this process
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
    except Exception as error:  # Ray raises nothing narrower where a node does not come up within 30 s
        if address is None:
            rule = "must start on this machine; where that is too busy, try again later"
            raise InvalidInput(problem("Ray", "start", rule, first_line(error))) from error
        hint = "where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        rule = f"must be the address of a running Ray cluster ({error}; {hint})"
        raise InvalidInput(problem("command line", "address", rule, address)) from error
    if threading.current_thread() is threading.main_thread():
        signal.signal(signal.SIGTERM, handler)  # Ray has taken it
    if address is None:
        logger.info("Ray's own logs are in %s", global_worker.node.get_logs_dir_path())
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
    if found := why_unreachable(host, int(port)):
        rule = f"must be the address of a running Ray cluster ({found})"
        raise InvalidInput(problem("command line", "address", rule, address))
