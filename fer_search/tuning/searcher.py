"""A search's (or a race's) state behind Ray Tune's Searcher interface."""

from collections.abc import Callable
from typing import Any

from ray.tune.search import Searcher

from fer_search.tuning.limit import Limit
from fer_search.tuning.trial_state import TrialState


class StateSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Gives free workers their trials: `{"trial": number, "parameters": complete parameter set, "places": number}`.

    As many run at once as have `places`, given the state, and as the `limit` allows.

    A trial of ours may be several of Ray's: one that waited at a rung, or was interrupted, comes again and goes on from
    its checkpoint, on whatever node. So Ray has nothing to keep for it, and nothing of Ray's has to survive a restart.
    """

    def __init__(self, state: TrialState, *, places: Callable[[TrialState], int], limit: Limit) -> None:
        super().__init__(metric=state.metric, mode="max")
        self.state, self.places, self.limit = state, places, limit

    def suggest(self, trial_id: str) -> dict[str, Any] | str | None:
        """Return what a free worker is to run, None if it has to wait, or FINISHED."""
        with self.limit.storage_faults():
            return self._next()
        return str(Searcher.FINISHED)

    def _next(self) -> dict[str, Any] | str | None:
        if not self.limit.allows(self.state.num_running + 1):
            return None if self.state.num_running else str(Searcher.FINISHED)
        if self.state.num_places >= self.places(self.state):
            return None
        trial = self.state.next_trial()
        if trial is not None:
            return {"trial": trial.number, "parameters": trial.parameters, "places": trial.places}
        return str(Searcher.FINISHED) if self.state.finished else None

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Accept Tune's call; the scheduler has heard of it already."""

    def save(self, checkpoint_path: str) -> None:
        """Accept Tune's call; the journal is what a search goes on from."""
