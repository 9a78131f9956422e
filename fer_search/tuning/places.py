"""How many trials a cluster has room for while its nodes come and go, and what an autoscaler hears of the others."""

import time
from typing import Self

from ray.autoscaler.v2.utils import is_autoscaler_v2
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group

from fer_search.tuning.connection import MAX_STARTING, Resources, num_slots
from fer_search.tuning.trial_state import TrialState

COUNT_SECONDS = 1.0
"""How old a count of the nodes may be: a search of many trials asks more often than it is worth counting."""


class Places:
    """Says how many trials of a search may have a worker now, or be about to get one.

    As many as fit on the nodes that are there, and at most `resources.max_concurrent`: who waits longer than a worker
    takes to start was suggested without the results that came in the meantime. So an autoscaler does not see from the
    trials themselves what more there is to run. It is shown by reservations of a place each: while all places are
    taken, there is one for each trial that could begin, and none otherwise, so that none stands in a trial's way.

    What others run on the same cluster is not counted: who shares one gives each search its `max_concurrent`.
    """

    def __init__(self, resources: Resources) -> None:
        self.resources = resources
        self._grows = is_autoscaler_v2(fetch_from_server=True)
        self._reserved: list[PlacementGroup] = []
        self._count_at, self._fit = 0.0, 0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._reserve(0)

    def __call__(self, state: TrialState) -> int:
        """Return the most places that may be taken now, and let an autoscaler know how many more could."""
        if (now := time.monotonic()) >= self._count_at:
            self._fit, self._count_at = num_slots(self.resources), now + COUNT_SECONDS
        most = self.resources.max_concurrent
        if self._grows:
            could = min(state.num_waiting, most - state.num_places if most else MAX_STARTING, MAX_STARTING)
            self._reserve(could if state.num_places >= self._fit else 0)
        return min(self._fit, most) if most else self._fit

    def _reserve(self, count: int) -> None:
        """Hold so many reservations; what is held is given back when this process ends, however it does."""
        while len(self._reserved) > max(0, count):
            remove_placement_group(self._reserved.pop())
        while len(self._reserved) < count:
            self._reserved.append(placement_group([self.resources.bundle]))
