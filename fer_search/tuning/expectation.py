"""How far the trials of a search are expected to come."""

from fer_search.tuning.space import Space

NUM_FINALISTS = 3
"""How many trials reach the horizon at least, so that there is something to compare."""


def expected_epochs(space: Space) -> int:
    """Return how many epochs all trials have together if as many as expected go on at every rung."""
    reached = expected_trials(space)
    levels = [0, *reached]
    return sum(count * (level - levels[i]) for i, (level, count) in enumerate(reached.items()))


def expected_trials(space: Space) -> dict[int, int]:
    """Return how many trials reach each rung and the horizon if 1/eta of those at a rung go on.

    Halving as it happens lets more through: the first at a rung know no others, and later proposals are better.
    """
    counts = {level: space.num_trials // space.eta**i for i, level in enumerate((*space.rungs, space.horizon))}
    at_least = min(NUM_FINALISTS, space.num_trials) if space.scheduler == "promotion" else 1
    return {level: max(count, at_least) for level, count in counts.items()}
