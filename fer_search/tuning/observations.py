"""What a model of the curves sees of the trials of a study: where each was looked at, and what was seen there."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import chain

import numpy as np
from numpy.typing import NDArray
from optuna.distributions import BaseDistribution
from optuna.trial import FrozenTrial, TrialState

from fer_search.tuning.encoding import Encoding
from fer_search.tuning.gaussian_process import Array, Points

Indices = NDArray[np.int64]

DIVERGED = "diverged"
"""The user attribute of a failed trial whose parameters are to blame."""
STARTUP_PER_PARAMETER = 2


@dataclass(frozen=True)
class Observations:
    """What the model sees of trials: `units` and `columns` (trials, ·) of all, `points` and `values` of what was seen.

    `points.trial` and `pending` are rows of `units` and `columns`.
    """

    units: Array
    columns: Array
    points: Points
    values: Array
    pending: Indices

    def suffices(self, encoding: Encoding) -> bool:
        """Return whether enough trials have a value to learn from; too few lead a search astray for long."""
        return len(np.unique(self.points.trial)) >= STARTUP_PER_PARAMETER * (encoding.num_parameters + 1)

    def digest(self, index: Indices) -> bytes:
        """Return the bytes of the observations at `index`: what a model of them depends on."""
        points = self.points.take(index)
        return b"".join(part.tobytes() for part in (points.x, points.epoch, points.trial, self.values[index]))

    def thinned(self, limit: int, *, upto: int) -> Indices:
        """Return the indices of at most `limit` observations of the trials in the first `upto` rows.

        Curves that went furthest come first, whole. Of those that ended earliest, which are the most, up to a third of
        the room goes to the best, and the rest is spread evenly over all.
        """
        index = np.flatnonzero(self.points.trial < upto)
        if len(index) <= limit:
            return index
        reached = np.zeros(len(self.columns))
        np.maximum.at(reached, self.points.trial, self.points.epoch)
        reached = reached[self.points.trial[index]]
        shallow = index[reached == reached.min()]
        deep = index[np.lexsort((index, -reached))][: len(index) - len(shallow)]
        deep = deep[: max(limit - len(shallow), int(0.7 * limit))]
        room = limit - len(deep)
        shallow = shallow[np.argsort(-self.values[shallow], kind="stable")]
        best, others = shallow[: room // 3], shallow[room // 3 :]
        spread = others[np.linspace(0, len(others) - 1, room - len(best)).astype(int)]
        return np.sort(np.concatenate([deep, best, spread]))


class Observer:
    """Turns trials into Observations at `levels`, the horizon last, and at each trial's last epoch.

    Of thousands of trials only few are new at each call, so what is known of one is kept as long as it is the same
    object: Optuna's storages put another in its place when it changes. No result depends on what was seen before.
    """

    def __init__(self, levels: Sequence[int]) -> None:
        self.levels = levels
        self._forget({})

    def space(self, trials: Sequence[FrozenTrial]) -> dict[str, BaseDistribution]:
        """Return every parameter that one of `trials` has, also those that only some have, but for constants."""
        with_same_names = {tuple(trial.distributions): trial for trial in trials}
        found = {name: each for trial in with_same_names.values() for name, each in trial.distributions.items()}
        return {name: found[name] for name in sorted(found) if not found[name].single()}

    def observe(
        self, trials: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]
    ) -> tuple[Encoding, Observations]:
        """Return the encoding of `space`, and what `trials` say of it.

        A diverged trial counts as the worst value seen, at the horizon; a broken machine says nothing. Pending is what
        runs: not what has ended or waits at a level.
        """
        if space != self._encoding.space:
            self._forget(space)
        self._update(trials)
        count = len(trials)
        curves = self._curves[:count]
        failed = np.flatnonzero(self._failed[:count])
        seen = np.repeat(np.arange(count), [len(epochs) for epochs, _ in curves])
        epochs = np.fromiter(chain.from_iterable(epochs for epochs, _ in curves), float)
        values = np.fromiter(chain.from_iterable(values for _, values in curves), float)
        if len(values):
            seen = np.concatenate([seen, failed])
            epochs = np.concatenate([epochs, np.full(len(failed), float(self.levels[-1]))])
            values = np.concatenate([values, np.full(len(failed), values.min())])
        columns = self._columns[:count]
        points = Points(columns[seen], epochs, seen)
        pending = np.flatnonzero(self._pending[:count])
        return self._encoding, Observations(self._units[:count], columns, points, values, pending)

    def _forget(self, space: Mapping[str, BaseDistribution]) -> None:
        self._encoding = Encoding(space)
        self._trials: list[FrozenTrial | None] = []
        self._curves: list[tuple[tuple[int, ...], tuple[float, ...]]] = []
        self._units = np.empty((0, self._encoding.num_parameters))
        self._columns = np.empty((0, len(self._encoding.groups)))
        self._pending = self._failed = np.empty(0, dtype=bool)

    def _update(self, trials: Sequence[FrozenTrial]) -> None:
        missing = len(trials) - len(self._trials)
        if missing > 0:
            self._trials += [None] * missing
            self._curves += [((), ())] * missing
            self._reserve(len(trials))
        changed = [row for row, trial in enumerate(trials) if self._trials[row] is not trial]
        if not changed:
            return
        self._units[changed] = self._encoding.units([trials[row].params for row in changed])
        self._columns[changed] = self._encoding.columns(self._units[changed])
        for row in changed:
            trial = self._trials[row] = trials[row]
            curve, has_failed = trial.intermediate_values, trial.state == TrialState.FAIL
            last = max(curve, default=0)
            looked_at = [level for level in self.levels if level < last and level in curve] + [last] * bool(curve)
            self._curves[row] = ((), ()) if has_failed else (tuple(looked_at), tuple(curve[at] for at in looked_at))
            self._pending[row] = trial.state == TrialState.RUNNING and last not in self.levels
            self._failed[row] = has_failed and bool(trial.user_attrs.get(DIVERGED))

    def _reserve(self, count: int) -> None:
        """Make room for so many trials; in steps of a half, so that each is copied few times."""
        short = count - len(self._units)
        if short > 0:
            more = max(short, len(self._units) // 2)
            self._units = np.concatenate([self._units, np.empty((more, self._units.shape[1]))])
            self._columns = np.concatenate([self._columns, np.empty((more, self._columns.shape[1]))])
            self._pending = np.concatenate([self._pending, np.zeros(more, dtype=bool)])
            self._failed = np.concatenate([self._failed, np.zeros(more, dtype=bool)])
