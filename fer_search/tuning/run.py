"""Build and run the Tuner: searcher, scheduler, resources, failures, resume."""

import logging
import os
import signal
import socket
import tempfile
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from fer_search.checkpoints import CHECKPOINTS
from fer_search.errors import InvalidInput, problem
from fer_search.tuning.faults import FailureCallback, Watchdog
from fer_search.tuning.limit import Budget, Limit
from fer_search.tuning.objective import Objective, ObjectiveTrainable
from fer_search.tuning.retention import Retention
from fer_search.tuning.scheduler import StateScheduler
from fer_search.tuning.searcher import StateSearcher
from fer_search.tuning.stopping import Stopping, stopped_by_signals
from fer_search.tuning.trial_state import TrialState

REACH_SECONDS = 5.0
NO_LIMIT = Budget()

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Resources:
    """What one trial occupies, and how many trials run at once at the most (0: as many as fit)."""

    cpus: int = 1
    gpus: float = 0.0
    max_concurrent: int = 0


def run_trials(
    objective: Objective,
    state: TrialState,
    directory: Path,
    *,
    resources: Resources,
    address: str | None = None,
    budget: Budget = NO_LIMIT,
    silence: float | None = None,
) -> bool:
    """Run the trials that `state` asks for and return whether it is finished; else it was interrupted, or spent its
    `budget`.

    When the budget is spent, or at SIGINT or SIGTERM, nothing new starts and each trial stops after the epoch that it
    is in; at another signal at once. A trial that reports nothing for `silence` seconds (see Watchdog) is tried again.

    What happens is in the state's journal as it happens, and what goes on from it in `directory`, which on a cluster
    must be one that every node reaches. Without `address` an embedded Ray is started and stopped again. Raises
    InvalidInput if no node can run a trial, and OSError, with all trials as they are on record, where driver or workers
    cannot write.
    """
    directory = directory.resolve()  # Ray takes a relative path for a URI without a scheme
    checkpoints = directory / CHECKPOINTS
    retention = Retention(state, checkpoints)
    retention.sweep()
    with connected(address):
        check_resources(resources)
        trainable = tune.with_resources(
            tune.with_parameters(ObjectiveTrainable, objective=objective, metric=state.metric, checkpoints=checkpoints),
            {"cpu": resources.cpus, "gpu": resources.gpus},
        )
        if not state.finished:
            slots = resources.max_concurrent or (num_slots(resources) if address is None else 0)
            limit = Limit(state.journal, budget, gpus=resources.gpus)
            with tempfile.TemporaryDirectory(prefix="fer_search_", ignore_cleanup_errors=True) as scratch:
                stopping = Stopping(limit)
                callbacks = [
                    FailureCallback(state, retention, directory / "errors", limit=limit),
                    Watchdog(state, allowed=silence),
                ]
                searcher = StateSearcher(state, max_concurrent=slots, limit=limit)
                scheduler = StateScheduler(state, retention, limit=limit)
                _fit(_tuner(trainable, searcher, scheduler, stopping, callbacks, scratch=scratch), limit)
    if state.finished:
        state.close()
        retention.sweep()
    return state.finished


def _fit(tuner: tune.Tuner, limit: Limit) -> None:
    """Run the experiment, and raise what kept the search from writing, if anything did."""
    try:
        with stopped_by_signals(limit):
            tuner.fit()
    except Exception:
        if limit.fault is None:
            raise
        logger.debug("the experiment ended on full or read-only storage", exc_info=True)
    if limit.fault is not None:
        raise limit.fault


def num_slots(resources: Resources) -> int:
    """Return how many trials fit at once on the connected cluster as it is now.

    Where no nodes come and go, Tune has to be told: it asks for one trial more than fits, so that an autoscaler sees
    the demand, and that one would be suggested too early.
    """
    found = ray.cluster_resources()
    slots = [
        found.get(kind, 0.0) // amount for kind, amount in (("CPU", resources.cpus), ("GPU", resources.gpus)) if amount
    ]
    return int(min(slots))


def check_resources(resources: Resources) -> None:
    """Raise InvalidInput if no node of the connected cluster has what one trial asks for; Ray would wait for ever."""
    nodes = [node["Resources"] for node in ray.nodes() if node["Alive"]]
    asked = {"CPU": float(resources.cpus), "GPU": resources.gpus}
    if any(all(node.get(kind, 0.0) >= amount for kind, amount in asked.items()) for node in nodes):
        return
    most = {kind: max((node.get(kind, 0.0) for node in nodes), default=0.0) for kind in asked}
    problems = [
        problem(
            "resources", f"{kind.lower()}s per trial", f"must be at most {most[kind]:g}, the most of any node", amount
        )
        for kind, amount in asked.items()
        if amount > most[kind]
    ]
    raise InvalidInput(problems or problem("resources", "trial", "must fit on one node", asked))


def _tuner(
    trainable: Any,
    searcher: StateSearcher,
    scheduler: StateScheduler,
    stopping: Stopping,
    callbacks: list[tune.Callback],
    *,
    scratch: str,
) -> tune.Tuner:
    """Return the experiment; what Ray itself writes is in `scratch`, where a disk of the run that is full harms it not.

    Nothing goes on from it.
    """
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=scheduler,
            num_samples=-1,  # the searcher says when it is finished
            reuse_actors=True,
            trial_dirname_creator=_trial_name,
            trial_name_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name="ray",
            storage_path=scratch,
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),  # the trainable keeps its own
            stop=stopping,
            callbacks=[*callbacks, stopping],
            verbose=0,
        ),
    )


def _trial_name(trial: Trial) -> str:
    return f"trial_{trial.config['trial']:05d}_{trial.trial_id}"


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
