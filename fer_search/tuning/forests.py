"""The forests that importances are averaged over: what a process of its own computes, and loads no more for."""

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def errors_of_forests(
    table: Floats, blocks: Sequence[slice], targets: Floats, *, forests: int, trees: int, shuffles: int
) -> Floats:
    """Return each forest's squared errors on the trials that it was not grown from: as they are, then with each block's
    shuffles (forests, 1 + blocks * shuffles)."""
    from sklearn.ensemble import ExtraTreesRegressor  # a second to load, which who only sends work here is spared

    generator = np.random.default_rng(0)
    errors = []
    for number in range(forests):
        drawn = generator.integers(len(targets), size=len(targets))
        left = np.setdiff1d(np.arange(len(targets)), drawn)
        forest = ExtraTreesRegressor(trees, min_samples_leaf=3, random_state=number)
        forest.fit(table[drawn], targets[drawn])
        shuffled = [_shuffled(table[left], block, generator) for block in blocks for _ in range(shuffles)]
        predictions = forest.predict(np.concatenate([table[left], *shuffled])).reshape(-1, len(left))
        errors.append(np.square(predictions - targets[left]).mean(axis=1))
    return np.array(errors)


def _shuffled(table: Floats, block: slice, generator: np.random.Generator) -> Floats:
    """Return the table with a parameter's values exchanged among the trials in which it was searched.

    What decides where it is searched keeps its effect to itself that way.
    """
    shuffled, rows = table.copy(), np.flatnonzero(~np.isnan(table[:, block.start]))
    shuffled[rows, block] = table[generator.permutation(rows), block]
    return shuffled
