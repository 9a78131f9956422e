"""What a search knows and what it decides, without Ray: it holds nothing that its journal does not, so none is lost."""

import bisect
from collections import deque
from collections.abc import Mapping

import numpy as np
import optuna
from optuna.trial import TrialState

from fer_search.journal import Journal, TrialRecord
from fer_search.tuning.space import Space

NUM_FINALISTS = 3
"""How many trials reach the horizon at least, so that there is something to compare."""


class SearchState:
    """The trials of a search: which one is to run next, and after each report whether it goes on.

    Everything that happens is in `journal` before it has a consequence. A new SearchState on the same journal goes on
    as this one would: suggestions and verdicts depend on the recorded trials and on the space alone. At most
    `max_concurrent` trials run at once (0: as many as are asked for).
    """

    def __init__(self, space: Space, journal: Journal, *, max_concurrent: int = 0) -> None:
        self.space, self.journal, self.max_concurrent = space, journal, max_concurrent
        self.study = optuna.create_study(direction="maximize")
        self._live: dict[int, optuna.Trial] = {}  # in the study, and not told yet
        self._running: set[int] = set()
        self._interrupted: deque[int] = deque()
        self._rungs: dict[int, list[tuple[float, int]]] = {rung: [] for rung in space.rungs}  # sorted, worst first
        self.study.sampler = optuna.samplers.RandomSampler()  # what is restored has its values already
        for number in sorted(journal.trials):
            self._restore(journal.trials[number])
        for number in list(self._interrupted):
            self._judge(journal.trials[number])  # a kill may have come before the verdict
            if journal.trials[number].state != "RUNNING":
                self._interrupted.remove(number)

    @property
    def finished(self) -> bool:
        """Whether there is nothing left to run."""
        started = len(self.journal.trials) >= self.space.num_trials
        return started and not self._running and not self._interrupted and self._promotable() is None

    def next_trial(self) -> TrialRecord | None:
        """Return the trial that a free worker is to run, from where it is, or None if there is none now."""
        if self.max_concurrent and len(self._running) >= self.max_concurrent:
            return None
        if self._interrupted:
            number = self._interrupted.popleft()
        elif (promotable := self._promotable()) is not None:
            number = promotable
            self.journal.trial_promoted(number, len(self.journal.trials[number].epochs))
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
            self._live[number].report(metrics[self.space.metric], epoch)
            self._judge(record)
        if record.state != "RUNNING":
            self._running.discard(number)
        return record.state == "RUNNING"

    def fail(self, number: int, message: str) -> None:
        """Record a trial that diverged or broke; its earlier epochs no longer set the bar for others."""
        self._running.discard(number)
        for rung in self._rungs.values():
            rung[:] = [entry for entry in rung if entry[1] != number]
        self._end(number, "FAIL", message)

    def close(self) -> None:
        """Stop the trials that wait at a rung, when the search is finished."""
        for record in self.journal.trials.values():
            if record.state == "PAUSED":
                self._end(record.number, "PRUNED")

    def _suggest(self) -> int:
        number = len(self.journal.trials)
        if number < len(self.space.points):
            self.study.enqueue_trial(self.space.points[number])
        self.study.sampler = self._sampler(number)
        trial = self._live[number] = self.study.ask()
        point = self.space.suggest(trial)
        self.journal.trial_started(number, self.space.complete(point), point=point)
        return number

    def _sampler(self, number: int) -> optuna.samplers.BaseSampler:
        """Return a sampler that draws from (seed, number), so that there is no generator to lose."""
        seed = int(np.random.SeedSequence([self.space.seed, number]).generate_state(1)[0])
        if self.space.searcher == "random":
            return optuna.samplers.RandomSampler(seed=seed)
        return optuna.samplers.TPESampler(seed=seed)

    def _judge(self, record: TrialRecord) -> None:
        """Decide whether a trial goes on after its last epoch."""
        epoch = len(record.epochs)
        if epoch >= self.space.horizon:
            self._end(record.number, "COMPLETE")
        elif epoch in self._rungs and record.passed < epoch:
            stopping = self.space.scheduler == "stopping"
            passes = self._is_strong(record, epoch) if stopping else False
            bisect.insort(self._rungs[epoch], (record.epochs[-1][self.space.metric], record.number))
            if not stopping:
                self.journal.trial_paused(record.number)
                passes = self._promotable() == record.number
            if passes:
                self.journal.trial_promoted(record.number, epoch)
            elif stopping:
                self._end(record.number, "PRUNED")

    def _is_strong(self, record: TrialRecord, rung: int) -> bool:
        """Apply the stopping rule of ASHA (Li et al. 2020, https://arxiv.org/abs/1810.05934) as Ray does."""
        before = [value for value, _ in self._rungs[rung]]
        value = record.epochs[-1][self.space.metric]
        return not before or bool(value >= np.percentile(before, 100 * (1 - 1 / self.space.eta)))

    def _promotable(self) -> int | None:
        """Return the paused trial that is to go on: at the highest rung that has one, the best of its best 1/eta.

        Where all trials have been started and few came through, the best of the others go on too.
        """
        for rung, entries in reversed(self._rungs.items()):
            if (
                number := self._best_paused(rung, entries[len(entries) - len(entries) // self.space.eta :])
            ) is not None:
                return number
        if len(self.journal.trials) < self.space.num_trials or self._running:
            return None
        if sum(record.state == "COMPLETE" for record in self.journal.trials.values()) >= NUM_FINALISTS:
            return None
        found = (self._best_paused(rung, entries) for rung, entries in reversed(self._rungs.items()))
        return next((number for number in found if number is not None), None)

    def _best_paused(self, rung: int, entries: list[tuple[float, int]]) -> int | None:
        for _, number in reversed(entries):
            record = self.journal.trials[number]
            if record.state == "PAUSED" and len(record.epochs) == rung:
                return number
        return None

    def _end(self, number: int, state: str, message: str = "") -> None:
        self.journal.trial_ended(number, state, message)
        self._tell(self.journal.trials[number])

    def _tell(self, record: TrialRecord) -> None:
        value = record.last(self.space.metric) if record.state == "COMPLETE" else None
        self.study.tell(self._live.pop(record.number), value, TrialState[record.state])

    def _restore(self, record: TrialRecord) -> None:
        """Bring study and rungs to where this trial's record is."""
        self.study.enqueue_trial(record.point)
        trial = self._live[record.number] = self.study.ask()
        self.space.suggest(trial)
        for epoch, metrics in enumerate(record.epochs, start=1):
            trial.report(metrics[self.space.metric], epoch)
            judged = record.ended or record.state == "PAUSED" or epoch < len(record.epochs) or record.passed >= epoch
            if epoch in self._rungs and judged and record.state != "FAIL":
                bisect.insort(self._rungs[epoch], (metrics[self.space.metric], record.number))
        if record.ended:
            self._tell(record)
        elif record.state == "RUNNING":
            self._interrupted.append(record.number)
