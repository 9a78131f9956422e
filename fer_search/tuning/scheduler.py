"""Successive halving that keeps no state of its own, so that there is none to lose.

Ray's ASHAScheduler is not saved with an experiment: after a restart its rungs are empty and nothing is stopped
(ray#30838). Here a rung is a view of the results that the searcher keeps and restores.
"""

from typing import Any

import numpy as np
from ray.tune.experiment import Trial
from ray.tune.schedulers import FIFOScheduler, TrialScheduler

from fer_search.tuning.searcher import OptunaSearcher


class SuccessiveHalving(FIFOScheduler):  # type: ignore[misc]  # Ray has no types
    """Asynchronous successive halving (ASHA, Li et al. 2020, https://arxiv.org/abs/1810.05934), the stopping variant.

    At each rung a trial goes on if its result is within the best 1/eta of the results that reached the rung before it.
    A resumed trial reports only the steps after its checkpoint, so it never writes into a rung below.
    """

    def __init__(self, searcher: OptunaSearcher) -> None:
        super().__init__()
        self.searcher = searcher
        self.rungs = searcher.space.rungs
        self.eta = searcher.space.eta

    def set_search_properties(self, metric: str | None, mode: str | None, **spec: Any) -> bool:
        """Accept Tune's call; metric and mode are those of the searcher."""
        return True

    @property
    def metric(self) -> str:
        """The name of the compared result."""
        return str(self.searcher.metric)

    def on_trial_result(self, tune_controller: object, trial: Trial, result: dict[str, Any]) -> str:
        """Stop a trial that is weak at a rung."""
        step = int(result["training_iteration"])
        if step not in self.rungs or self.searcher.has_passed(trial.config["trial"], step):
            return str(TrialScheduler.CONTINUE)
        before = self.searcher.values_at(step, besides=trial.config["trial"])
        if before and result[self.metric] < np.percentile(before, 100 * (1 - 1 / self.eta)):
            return str(TrialScheduler.STOP)
        return str(TrialScheduler.CONTINUE)
