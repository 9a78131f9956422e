"""Build and run the Tuner: searcher, scheduler, resources, failures, resume."""

import logging
import tempfile
from pathlib import Path
from typing import Any

from ray import tune
from ray.tune.experiment import Trial

from fer_search.checkpoints import CHECKPOINTS
from fer_search.tuning.connection import Resources, check_resources, connected
from fer_search.tuning.faults import FailureCallback, Watchdog
from fer_search.tuning.limit import NO_LIMIT, Budget, Limit
from fer_search.tuning.objective import Objective, ObjectiveTrainable
from fer_search.tuning.places import Places
from fer_search.tuning.retention import Retention
from fer_search.tuning.scheduler import StateScheduler
from fer_search.tuning.searcher import StateSearcher
from fer_search.tuning.stopping import Stopping, stopped_by_signals
from fer_search.tuning.trial_state import TrialState

logger = logging.getLogger(__name__)


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
            tune.with_parameters(
                ObjectiveTrainable,
                objective=objective,
                metric=state.metric,
                checkpoints=checkpoints,
                resources=resources,
            ),
            lambda config: tune.PlacementGroupFactory([resources.of(config["places"]).bundle]),
        )
        if not state.finished:
            limit = Limit(state.journal, budget, gpus=resources.gpus)
            with (
                tempfile.TemporaryDirectory(prefix="fer_search_", ignore_cleanup_errors=True) as scratch,
                Places(resources) as places,
            ):
                stopping = Stopping(limit)
                callbacks = [
                    FailureCallback(state, retention, directory / "errors", limit=limit),
                    Watchdog(state, allowed=silence),
                ]
                searcher = StateSearcher(state, places=places, limit=limit)
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
