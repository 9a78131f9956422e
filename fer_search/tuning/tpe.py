"""Optuna's TPE made to learn from trials that wait at a rung or diverged: the light alternative to the curve model."""

from collections.abc import Iterable

import optuna
from optuna.trial import FrozenTrial, TrialState

from fer_search.journal import TrialRecord
from fer_search.tuning.space import Point, Space


def tpe_point(space: Space, trials: Iterable[TrialRecord], *, seed: int) -> Point:
    """Return the next point to try, which depends on nothing but the arguments.

    TPE ranks stopped trials by how far they came and then by their value, but leaves out those that are running or
    failed. Under promotion nearly all trials wait, so they are shown as stopped where they are; a diverged one is shown
    as stopped before its first epoch, which is the worst rank, so that it is not proposed again.
    """
    study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=seed))
    study.add_trials([_as_seen(space, record) for record in trials])
    return space.suggest(study.ask())


def _as_seen(space: Space, record: TrialRecord) -> FrozenTrial:
    values = {epoch: metrics[space.metric] for epoch, metrics in enumerate(record.epochs, start=1)}
    state = TrialState[record.state] if record.state in TrialState.__members__ else TrialState.PRUNED  # PAUSED
    if record.diverged:
        state, values = TrialState.PRUNED, {0: 0.0}
    return optuna.trial.create_trial(
        state=state,
        value=record.last(space.metric) if state == TrialState.COMPLETE else None,
        params=record.point,
        distributions={name: space.domains[name] for name in record.point},
        intermediate_values=values,
    )
