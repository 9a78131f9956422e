"""Which paused trial goes on: successive halving by promotion, as a pure function of what the trials have reported.

Nothing is kept between two decisions, so a restart decides as if there had been none. Trials are numbers here; who runs
them is not known.
"""

from collections.abc import Collection, Mapping, Sequence


def rung_levels(*, first: int, eta: int, horizon: int) -> tuple[int, ...]:
    """Return the epochs at which trials pause: `first`, each `eta` times the one before, and last the horizon."""
    levels = [first]
    while levels[-1] * eta < horizon:
        levels.append(levels[-1] * eta)
    return (*levels, horizon) if first < horizon else (horizon,)


def next_promotion(
    records: Mapping[int, Mapping[int, float]],
    paused: Mapping[int, Collection[int]],
    *,
    levels: Sequence[int],
    eta: int,
) -> int | None:
    """Return the number of the trial to promote, or None if a new one is to be started.

    `records[level]` holds the value of every trial, by number, that has reported `level`, whatever became of it since,
    except for those that diverged; `paused[level]` the trials that wait at `level`. From the highest level below the
    horizon down, a trial goes on if it waits there and is among the best 1/eta of the level's trials (ASHA, Li et al.
    2020, https://arxiv.org/abs/1810.05934, algorithm 2). Of equals the older one goes first. The cost is linear in the
    number of trials.
    """
    for level in sorted(levels[:-1], reverse=True):
        reached = records.get(level, {})
        places, waiting = len(reached) // eta, paused.get(level, ())
        if not places or not waiting:
            continue
        candidates = [number for number in waiting if number in reached]
        if not candidates:
            continue
        best = max(candidates, key=lambda number: (reached[number], -number))
        bar = reached[best]
        if sum(value > bar or (value == bar and other < best) for other, value in reached.items()) < places:
            return best
    return None
