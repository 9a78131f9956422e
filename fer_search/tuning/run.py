"""Build and run the Tuner: searcher, scheduler, resources, failures, resume."""

import logging
import os
import shutil
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
from ray import tune
from ray.tune.experiment import Trial

from fer_search.errors import InvalidInput, problem
from fer_search.journal import FILE_NAME, TrialRecord, read_journal
from fer_search.tuning.callback import JournalCallback
from fer_search.tuning.objective import Objective, ObjectiveTrainable
from fer_search.tuning.scheduler import SuccessiveHalving
from fer_search.tuning.searcher import OptunaSearcher
from fer_search.tuning.space import Space

RAY_DIRECTORY = "ray"
MAX_FAILURES = 2
REACH_SECONDS = 5.0


@dataclass(frozen=True)
class Resources:
    """What one trial occupies, and how many trials run at once at the most (0: as many as fit)."""

    cpus: int = 1
    gpus: float = 0.0
    max_concurrent: int = 0


def run_search(
    objective: Objective,
    space: Space,
    directory: Path,
    *,
    resources: Resources,
    address: str | None = None,
    resume: bool = False,
) -> None:
    """Search `space` for the parameters with which `objective` reports the largest metric; return when it is done.

    What happens is written to `directory`/journal.jsonl as it happens. Without `address` an embedded Ray is started and
    stopped again; on a cluster, `directory` must be one that every node reaches. With `resume` the search in
    `directory` goes on where it was. Raises InvalidInput if no node can run a trial.
    """
    directory = directory.resolve()  # Ray takes a relative path for a URI without a scheme
    with connected(address):
        check_resources(resources)
        trainable = tune.with_resources(
            tune.with_parameters(ObjectiveTrainable, objective=objective, metric=space.metric, horizon=space.horizon),
            {"cpu": resources.cpus, "gpu": resources.gpus},
        )
        if resume and tune.Tuner.can_restore(directory / RAY_DIRECTORY):
            tuner = tune.Tuner.restore(str(directory / RAY_DIRECTORY), trainable, resume_unfinished=True)
        else:
            tuner = _new_tuner(trainable, space, directory, resources)
        tuner.fit()
    if len(trials := read_journal(directory / FILE_NAME)) == space.num_trials:
        _remove_checkpoints(directory, trials)


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


def _remove_checkpoints(directory: Path, trials: list[TrialRecord]) -> None:
    """Free the disk of the checkpoints of a complete search: Ray keeps them for ever, and nothing resumes from them."""
    if all(trial.state != "RUNNING" for trial in trials):
        for checkpoint in (directory / RAY_DIRECTORY).glob("trial_*/checkpoint_*"):
            shutil.rmtree(checkpoint, ignore_errors=True)


def _new_tuner(trainable: Any, space: Space, directory: Path, resources: Resources) -> tune.Tuner:
    searcher = OptunaSearcher(space)
    return tune.Tuner(
        trainable,
        tune_config=tune.TuneConfig(
            search_alg=searcher,
            scheduler=SuccessiveHalving(searcher),
            num_samples=space.num_trials,
            max_concurrent_trials=resources.max_concurrent or None,
            reuse_actors=True,
            trial_dirname_creator=_trial_name,
            trial_name_creator=_trial_name,
        ),
        run_config=tune.RunConfig(
            name=RAY_DIRECTORY,
            storage_path=str(directory),
            # A kill may come before the experiment's state names the newest checkpoint, so the one before is kept too;
            # should even that be gone, ObjectiveTrainable.restore starts the trial again.
            checkpoint_config=tune.CheckpointConfig(num_to_keep=2, checkpoint_frequency=1),
            failure_config=tune.FailureConfig(max_failures=MAX_FAILURES),
            callbacks=[JournalCallback(directory / FILE_NAME, horizon=space.horizon)],
            verbose=0,
        ),
    )


def _trial_name(trial: Trial) -> str:
    return f"trial_{trial.config['trial']:05d}"


@contextmanager
def connected(address: str | None) -> Iterator[None]:
    """Connect to the cluster at `address`, or start an embedded Ray; a connection that was there before is used."""
    os.environ.setdefault("TUNE_DISABLE_AUTO_CALLBACK_LOGGERS", "1")  # the journal replaces csv, json and TensorBoard
    os.environ.setdefault("TUNE_GLOBAL_CHECKPOINT_S", "1")  # save the experiment's state every second, not every ten
    os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
    if ray.is_initialized():
        yield
        return
    if address:
        _check_reachable(address)
    try:
        ray.init(
            address=address or "local",
            include_dashboard=None if address else False,
            log_to_driver=False,
            logging_level=logging.ERROR,
        )
    except (ConnectionError, ValueError, RuntimeError) as error:
        hint = "where it asks for a token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH"
        if address is None:
            raise
        rule = f"must be the address of a running Ray cluster ({error}; {hint})"
        raise InvalidInput(problem("command line", "address", rule, address)) from error
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
