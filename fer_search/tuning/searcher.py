"""Optuna behind Ray Tune's Searcher interface, told what really happened to each trial.

Ray's own OptunaSearch tells a stopped trial as COMPLETE with its last value and leaves a diverged one RUNNING; here a
trial is COMPLETE only at the horizon, PRUNED with its last step when it was stopped, and FAIL when it diverged or
broke.
"""

import pickle
from pathlib import Path
from typing import Any

import optuna
from optuna.trial import Trial, TrialState
from ray.tune.search import Searcher

from fer_search.atomic import replacing
from fer_search.tuning.space import Space


class OptunaSearcher(Searcher):  # type: ignore[misc]  # Ray has no types
    """Suggests trials of `space` by Optuna's TPE; the space's first point comes first.

    A suggestion is `{"trial": number, "parameters": complete parameter set}`. The study lives in memory and is saved
    with Ray's experiment state; `values_at` gives the scheduler the results of all trials at one step.
    """

    def __init__(self, space: Space) -> None:
        super().__init__(metric=space.metric, mode="max")
        self.space = space
        self.study = optuna.create_study(direction="maximize", sampler=optuna.samplers.TPESampler(seed=space.seed))
        self.study.enqueue_trial(space.first_point)
        self._live: dict[str, Trial] = {}
        self._curves: dict[int, dict[int, float]] = {}

    def suggest(self, trial_id: str) -> dict[str, Any]:
        """Return the next trial's number and its complete parameter set."""
        trial = self.study.ask(dict(self.space.domains))
        self._live[trial_id] = trial
        return {"trial": trial.number, "parameters": {**self.space.parameters, **trial.params}}

    def on_trial_result(self, trial_id: str, result: dict[str, Any]) -> None:
        """Pass a report that did not end the trial on to the study."""
        trial, step = self._live.get(trial_id), int(result["training_iteration"])
        if trial is None:
            return  # Tune saves its trials before the searcher: a kill in between restores a trial not known here
        trial.report(result[self.metric], step)
        self._curves.setdefault(trial.number, {})[step] = result[self.metric]

    def on_trial_complete(self, trial_id: str, result: dict[str, Any] | None = None, error: bool = False) -> None:
        """Tell the study how the trial ended; `result` is the report that ended it, which came nowhere else."""
        trial = self._live.pop(trial_id, None)
        if trial is None:
            return
        if error or not result or "diverged" in result:
            # A diverged trial leaves the rungs too: its earlier epochs must not set the bar.
            self.study.tell(trial, state=TrialState.FAIL)
            self._curves.pop(trial.number, None)
            return
        step, value = int(result["training_iteration"]), float(result[self.metric])
        trial.report(value, step)
        self._curves.setdefault(trial.number, {})[step] = value
        if step >= self.space.horizon:
            self.study.tell(trial, value)
        else:
            self.study.tell(trial, state=TrialState.PRUNED)

    def values_at(self, step: int, *, besides: int) -> list[float]:
        """Return the results at `step` of all trials but the one numbered `besides`."""
        return [curve[step] for number, curve in self._curves.items() if number != besides and step in curve]

    def has_passed(self, number: int, step: int) -> bool:
        """Return whether a trial has reported `step` before and gone on, which it repeats after an interruption."""
        return step in self._curves.get(number, {})

    def save(self, checkpoint_path: str) -> None:
        """Write the state to `checkpoint_path`, whole or not at all."""
        with replacing(Path(checkpoint_path)) as temporary:
            temporary.write_bytes(pickle.dumps((self.study, self._live, self._curves)))

    def restore(self, checkpoint_path: str) -> None:
        """Continue from what `save` wrote."""
        self.study, self._live, self._curves = pickle.loads(Path(checkpoint_path).read_bytes())
