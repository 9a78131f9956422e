"""What a search knows and what it decides, without Ray: it holds nothing that its journal does not, so none is lost."""

import logging
import math
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from functools import cache

import numpy as np
import optuna
from optuna.trial import TrialState
from threadpoolctl import ThreadpoolController

from fer_search.journal import Journal, TrialRecord
from fer_search.tuning.cost_model import Measure, cost_of
from fer_search.tuning.expectation import NUM_FINALISTS
from fer_search.tuning.observations import DIVERGED
from fer_search.tuning.pareto_rungs import ParetoRungs
from fer_search.tuning.rungs import Rungs
from fer_search.tuning.sampler import COST, CurveSampler
from fer_search.tuning.select import leaderboard
from fer_search.tuning.space import Space
from fer_search.tuning.tpe import tpe_point

Verdict = Callable[[TrialRecord], str | None]
"""Why a trial should end at once after its last epoch, whatever the others do, or None."""

NUM_KEPT_FINALISTS = 5
"""How many of the best trials at the horizon keep their last checkpoint, so that their weights can be used."""


class SearchState:
    """The trials of a search: which one is to run next, and after each report whether it goes on.

    Everything that happens is in `journal` before it has a consequence. A new SearchState on the same journal goes on
    as this one would: suggestions and verdicts depend on the recorded trials and on the space alone.
    The searcher learns from the `past` trials of another search too, whose points lie in this space. They come before
    this search's own in the study, so that its numbers there are higher than in the journal, and are in no rung.
    Where the space names a cost, `measure` gives it, once for each network, when a trial starts. Trials then go on, and
    are suggested, for the whole Pareto front of metric against cost; the `past` ones must have their cost.
    """

    def __init__(
        self,
        space: Space,
        journal: Journal,
        *,
        verdict: Verdict | None = None,
        past: Sequence[TrialRecord] = (),
        measure: Measure | None = None,
    ) -> None:
        assert (measure is None) == (space.cost is None)
        self.space, self.journal, self._verdict, self._past = space, journal, verdict, past
        self._measure = measure
        logging.getLogger("optuna.storages._in_memory").setLevel(logging.WARNING)  # it would tell of a study's birth
        self.study = optuna.create_study(direction="maximize")
        self._live: dict[int, optuna.Trial] = {}  # in the study, and not told yet
        self._curves = CurveSampler(
            seed=space.seed,
            levels=(*space.rungs, space.horizon),
            priors=space.priors,
            cost_parameters=space.cost_dimensions,
        )
        self._running: set[int] = set()
        self._interrupted: deque[int] = deque()
        self._rungs: Rungs | ParetoRungs = (
            Rungs(space.rungs, eta=space.eta)
            if space.cost is None
            else ParetoRungs(space.rungs, eta=space.eta, log_cost=self._log_cost)
        )
        self.study.sampler = optuna.samplers.RandomSampler()  # what is restored has its values already
        for record in past:
            self._tell(self._ask(record), record)
        for number in sorted(journal.trials):
            self._restore(journal.trials[number])
        for number in list(self._interrupted):
            self._judge(journal.trials[number])  # a kill may have come before the verdict
            if journal.trials[number].ended or self._rungs.waits(len(journal.trials[number].epochs), number):
                self._interrupted.remove(number)

    @property
    def metric(self) -> str:
        """What is maximised."""
        return self.space.metric

    @property
    def num_running(self) -> int:
        """How many trials a worker has."""
        return len(self._running)

    @property
    def num_places(self) -> int:
        """How many places those take: a trial that found too little memory in one has several."""
        return sum(self.journal.trials[number].places for number in self._running)

    @property
    def num_waiting(self) -> int:
        """How many trials could begin now, or go on, if there were workers for them; of those at rungs one is seen."""
        new = max(0, self.space.num_trials - len(self.journal.trials))
        return len(self._interrupted) + new + (self._promotable() is not None)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run."""
        started = len(self.journal.trials) >= self.space.num_trials
        return started and not self._running and not self._interrupted and self._promotable() is None

    @property
    def finalists(self) -> frozenset[int]:
        """The best trials that reached the horizon, whose last checkpoint is kept."""
        complete = [record for record in self.journal.trials.values() if record.state == "COMPLETE"]
        ranked = leaderboard(complete, metric=self.metric)
        return frozenset(record.number for record in ranked[:NUM_KEPT_FINALISTS])

    def next_trial(self) -> TrialRecord | None:
        """Return the trial that a free worker is to run, from where it is, or None if there is none now."""
        if self._interrupted:
            number = self._interrupted.popleft()
            if self.journal.trials[number].state == "PAUSED":
                self.journal.trial_resumed(number)
        elif (promotable := self._promotable()) is not None:
            number = promotable
            self._promote(self.journal.trials[number])
        elif len(self.journal.trials) < self.space.num_trials:
            number = self._suggest()
        else:
            return None
        self._running.add(number)
        return self.journal.trials[number]

    def report(self, number: int, epoch: int, metrics: Mapping[str, float]) -> bool:
        """Record an epoch and return whether the trial goes on; one that is known was repeated after a pause."""
        record = self.journal.trials[number]
        if epoch > len(record.epochs):
            self.journal.epoch_ended(number, epoch, metrics)
            self._live[number].report(metrics[self.metric], epoch)
            self._judge(record)
        if record.state != "RUNNING":
            self._running.discard(number)
        return record.state == "RUNNING"

    def interrupt(self, number: int) -> None:
        """Let a running trial wait for the search to go on, at the epoch that it has reported last."""
        self._running.discard(number)
        self._interrupted.append(number)
        self.journal.trial_paused(number)

    def retry(self, number: int, message: str, *, node_lost: bool = False) -> None:
        """Let a running trial that failed be tried again, from the epoch that it has reported last."""
        if number in self._running:
            self.journal.trial_retried(number, message, node_lost=node_lost)
            self.interrupt(number)

    def widen(self, number: int) -> None:
        """Let a running trial that does not fit beside others come again with twice the places, from its last epoch."""
        if number in self._running:
            self.journal.trial_widened(number, 2 * self.journal.trials[number].places)
            self.interrupt(number)

    def fail(self, number: int, message: str) -> None:
        """Record a trial that diverged or broke; its earlier epochs no longer set the bar for others."""
        if number not in self._running:
            return  # its worker died after the verdict
        self._running.discard(number)
        self._rungs.forget(number)
        self._end(number, "FAIL", message)

    def close(self) -> None:
        """Stop the trials that wait at a rung, when the search is finished."""
        for record in self.journal.trials.values():
            if record.state == "PAUSED":
                self._end(record.number, "PRUNED")

    def _suggest(self) -> int:
        number = len(self.journal.trials)
        seed = int(np.random.SeedSequence([self.space.seed, number]).generate_state(1)[0])  # no generator to lose
        if number < len(self.space.points):
            self.study.enqueue_trial(self.space.points[number])
        elif self.space.searcher == "tpe":
            self.study.enqueue_trial(tpe_point(self.space, [*self._past, *self.journal.trials.values()], seed=seed))
        self.study.sampler = (
            self._curves if self.space.searcher == "curves" else optuna.samplers.RandomSampler(seed=seed)
        )
        with _blas().limit(limits=1):  # small matrices, and the trials need the cores
            trial = self._live[number] = self.study.ask()
            point = self.space.suggest(trial)
        parameters = self.space.complete(point)
        cost = None
        if self._measure is not None:
            known = (*self._past, *self.journal.trials.values())
            cost = cost_of(parameters, known, fields=self.space.cost_fields, measure=self._measure)
            trial.set_user_attr(COST, cost)
        self.journal.trial_started(number, parameters, point=point, cost=cost)
        return number

    def _log_cost(self, number: int) -> float:
        cost = self.journal.trials[number].cost
        assert cost is not None
        return math.log(cost)

    def _judge(self, record: TrialRecord) -> None:
        """Decide whether a trial goes on after its last epoch."""
        epoch = len(record.epochs)
        if epoch >= self.space.horizon:
            self._end(record.number, "COMPLETE")
            return
        message = self._verdict(record) if self._verdict and epoch else None
        if epoch in self._rungs and record.passed < epoch:
            self._rungs.reach(epoch, record.number, record.epochs[-1][self.metric])
            if message:
                self._end(record.number, "PRUNED", message)
            elif self.space.scheduler == "promotion":
                self.journal.trial_paused(record.number)
                self._rungs.wait(epoch, record.number)
                if self._promotable() == record.number:
                    self._promote(record)
            elif self._rungs.passes(epoch, record.number):
                self.journal.trial_promoted(record.number, epoch)
            else:
                self._end(record.number, "PRUNED")
        elif message:
            self._end(record.number, "PRUNED", message)

    def _promotable(self) -> int | None:
        """Return the paused trial that is to go on, if there is one.

        Where all trials have been started and few came through, the best of the others at the highest rung go on too.
        """
        number = self._rungs.promotable()
        if number is not None or len(self.journal.trials) < self.space.num_trials or self._running:
            return number
        if sum(record.state == "COMPLETE" for record in self.journal.trials.values()) >= NUM_FINALISTS:
            return None
        return self._rungs.best_waiting()

    def _promote(self, record: TrialRecord) -> None:
        rung = len(record.epochs)
        self._rungs.leave(rung, record.number)
        self.journal.trial_promoted(record.number, rung)

    def _end(self, number: int, state: str, message: str = "") -> None:
        self.journal.trial_ended(number, state, message)
        self._tell(self._live.pop(number), self.journal.trials[number])

    def _tell(self, trial: optuna.Trial, record: TrialRecord) -> None:
        if record.diverged:
            trial.set_user_attr(DIVERGED, True)
        value = record.last(self.metric) if record.state == "COMPLETE" else None
        self.study.tell(trial, value, TrialState[record.state])

    def _restore(self, record: TrialRecord) -> None:
        """Bring study and rungs to where this trial's record is."""
        self._live[record.number] = self._ask(record)
        for epoch, metrics in enumerate(record.epochs, start=1):
            judged = record.ended or record.state == "PAUSED" or epoch < len(record.epochs) or record.passed >= epoch
            if epoch in self._rungs and judged and record.state != "FAIL":
                self._rungs.reach(epoch, record.number, metrics[self.metric])
        if record.ended:
            self._tell(self._live.pop(record.number), record)
        elif record.state == "PAUSED" and record.passed < len(record.epochs) in self._rungs:
            self._rungs.wait(len(record.epochs), record.number)
        else:
            self._interrupted.append(record.number)

    def _ask(self, record: TrialRecord) -> optuna.Trial:
        """Return a new trial of the study with the point and the values of a record."""
        self.study.enqueue_trial(record.point)
        trial = self.study.ask()
        self.space.suggest(trial)
        if record.cost is not None:
            trial.set_user_attr(COST, record.cost)
        for epoch, metrics in enumerate(record.epochs, start=1):
            trial.report(metrics[self.metric], epoch)
        return trial


@cache
def _blas() -> ThreadpoolController:
    """Return what sets the threads of the linear algebra; to look for its libraries takes as long as a suggestion."""
    return ThreadpoolController().select(user_api="blas")
