"""Which parameters the results of a search hang on, judged by all of its trials, however early they were stopped.

Optuna's own evaluators read complete trials alone, of which successive halving leaves a few. Here each trial counts
with its rank among the trials that came as far as it did, and a forest learns that rank from the parameters.

What this cannot tell: what a parameter does that few trials vary, or vary only together with another one, as they do
once a sampler has settled; whether one that only pays late would have helped the trials that were stopped before; and
anything about values that were never tried. It is about this search's trials, not about the space as a whole.
"""

import math
import signal
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from loky import get_reusable_executor
from scipy.stats import rankdata

from fer_search.errors import InvalidInput, problem
from fer_search.journal import TrialRecord
from fer_search.tuning.forests import Floats, errors_of_forests
from fer_search.tuning.space import Space

MIN_TRIALS = 20
"""Below this, a forest is judged on so few trials that the importances are noise."""
NUM_FORESTS = 100
NUM_TREES = 50
NUM_SHUFFLES = 5
MANY_TRIALS = 250
"""From here on a forest says more and takes longer: half of the forests, a third of the trees and one shuffle do."""
IDLE_SECONDS = 10
"""How long the process that grows forests waits for more of them; its start takes one or two."""


@dataclass(frozen=True)
class Importance:
    """How much the ranks of the trials hang on one parameter, with a 95 % bootstrap interval.

    0 is no effect; the worth of a parameter in a sum of independent effects is its share of the ranks' variance. What
    several parameters do only together counts for each. In the best quarter of the trials, the middle 80 % of the
    values are within `best_range` (None for choices, and where it was not searched there); `best_choices` counts
    choices.
    """

    parameter: str
    importance: float
    low: float
    high: float
    num_trials: int
    best_range: tuple[float, float] | None
    best_choices: dict[str, int]


@dataclass(frozen=True)
class Importances:
    """The parameters by their importance, and the share of the ranks' variance that the forests explain.

    Where that is about 0, the parameters say nothing about the results, and no importance means anything.
    """

    num_trials: int
    explained: float
    parameters: tuple[Importance, ...]


def parameter_importances(trials: Sequence[TrialRecord], space: Space) -> Importances:
    """Return the importance of each searched parameter; raises InvalidInput for trials too few or too alike to tell.

    Each of many forests learns from trials drawn with replacement, and is judged on those that were not drawn, before
    and after a parameter's values were shuffled among them.
    """
    scores = rank_scores(trials, metric=space.metric)
    if len(scores) < MIN_TRIALS:
        rule = (
            f"must be at least {MIN_TRIALS} that reported an epoch or diverged, for importances to be more than noise"
        )
        raise InvalidInput(problem("search", "trials", rule, len(scores)))
    judged = [trial for trial in trials if trial.number in scores]
    targets = np.array([scores[trial.number] for trial in judged])
    if np.ptp(targets) == 0:
        rule = f"must differ in {space.metric} for importances"
        raise InvalidInput(problem("search", "trials", rule, judged[0].last(space.metric)))
    values = {parameter: _values(judged, space, parameter) for parameter in space.searched}
    samples, explained = _bootstrap([_encode(each, len(judged)) for each in values.values()], targets)
    low, high = np.percentile(samples, (2.5, 97.5), axis=0)
    best = set(np.argsort(targets)[-math.ceil(len(targets) / 4) :])
    found = [
        Importance(
            parameter,
            float(samples[:, column].mean()),
            float(low[column]),
            float(high[column]),
            len(values[parameter]),
            *_region([value for row, value in values[parameter].items() if row in best]),
        )
        for column, parameter in enumerate(values)
    ]
    return Importances(len(judged), explained, tuple(sorted(found, key=lambda each: each.importance, reverse=True)))


def rank_scores(trials: Sequence[TrialRecord], *, metric: str) -> dict[int, float]:
    """Return a score between 0 (worst) and 1 for each trial that can be compared, by its number.

    Trials are put in order by their first epoch. After each further one, those that came so far change places among
    themselves, by how they then did: so nobody is compared at different epochs, one that was stopped keeps its place
    among all, and one that went on for want of rivals gains none by it. Trials that diverged share the last place;
    those that broke for other reasons, or have no epoch yet, say nothing about their parameters and are left out.
    """
    judged = [trial for trial in trials if trial.diverged or (trial.epochs and trial.state != "FAIL")]
    sound = np.array([not trial.diverged for trial in judged], dtype=bool)
    lengths = np.array([len(trial.epochs) for trial in judged]) * sound
    if not judged:
        return {}
    places = rankdata([trial.epochs[0][metric] if ok else -math.inf for trial, ok in zip(judged, sound, strict=True)])
    for epoch in range(2, int(lengths.max()) + 1):
        rows = np.flatnonzero(lengths >= epoch)
        values = [judged[row].epochs[epoch - 1][metric] for row in rows]
        places[rows] = _shared(np.sort(places[rows]), values)
    scores = (places - 0.5) / len(judged)
    return {trial.number: float(score) for trial, score in zip(judged, scores, strict=True)}


def _shared(places: Floats, values: Sequence[float]) -> Floats:
    """Give the places, in ascending order, to the values in theirs; equal values get the mean of their places."""
    _, group = np.unique(values, return_inverse=True)
    means = np.bincount(np.sort(group), weights=places) / np.bincount(group)
    return np.asarray(means[group])


def _values(trials: Sequence[TrialRecord], space: Space, parameter: str) -> dict[int, Any]:
    """Return the parameter's value of each trial in which it was searched, by the trial's place in the list."""
    names = {name for name, dimension in space.dimensions.items() if dimension.parameter == parameter}
    return {row: trial.parameters[parameter] for row, trial in enumerate(trials) if names & trial.point.keys()}


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float) and not isinstance(value, bool)


def _encode(values: Mapping[int, Any], num_trials: int) -> Floats:
    """Return a parameter's columns: a rank, or a flag for each choice; NaN where it was not searched.

    Ranks make logarithmic and other scales alike.
    """
    found = list(values.values())
    if all(map(_is_number, found)):
        known = rankdata(found)[:, None]
    else:
        numbers = {choice: number for number, choice in enumerate(dict.fromkeys(found))}
        known = np.eye(len(numbers))[[numbers[choice] for choice in found]]
    columns = np.full((num_trials, known.shape[1]), np.nan)
    columns[list(values)] = known
    return columns


def _bootstrap(encoded: Sequence[Floats], targets: Floats) -> tuple[Floats, float]:
    """Return the importances (forest, parameter), and the share of the targets' variance that the forests explain."""
    table = np.hstack(encoded)
    ends = np.cumsum([columns.shape[1] for columns in encoded])
    blocks = [slice(end - columns.shape[1], end) for end, columns in zip(ends, encoded, strict=True)]
    many = len(targets) > MANY_TRIALS
    forests, trees, shuffles = (NUM_FORESTS // 2, NUM_TREES // 3, 1) if many else (NUM_FORESTS, NUM_TREES, NUM_SHUFFLES)
    # A process of its own leaves this one to whatever else it does meanwhile, as a report draws its plots. Ctrl-C ends
    # this one alone, without a traceback of the other, and that one with it.
    process = get_reusable_executor(
        1, timeout=IDLE_SECONDS, initializer=signal.signal, initargs=(signal.SIGINT, signal.SIG_IGN)
    )
    job = process.submit(errors_of_forests, table, blocks, targets, forests=forests, trees=trees, shuffles=shuffles)
    errors = job.result()
    intact, after = errors[:, :1], errors[:, 1:].reshape(forests, len(blocks), shuffles)
    # Exchanging a value for an independent one adds twice the variance that hangs on it (Jansen 1999). What is shuffled
    # without effect must be 0, and not what the order of a sum leaves.
    importances = (after.mean(axis=2) - intact) / (2 * targets.var())
    return importances.round(9), float(1 - intact.mean() / targets.var())


def _region(values: Sequence[Any]) -> tuple[tuple[float, float] | None, dict[str, int]]:
    if not all(map(_is_number, values)):
        return None, {str(value): count for value, count in Counter(values).most_common()}
    ordered = sorted(values)
    cut = len(ordered) // 10
    return (ordered[cut], ordered[-1 - cut]) if ordered else None, {}
