"""A search as it stands on disk, and what can be asked of it: who leads, what matters, at what cost."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_search.errors import InvalidInput, problem
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import TrialRecord, read_journal
from fer_search.long_trainings import HorizonAgreement, read_agreement
from fer_search.record import form_of
from fer_search.runs import RUNS, SETTINGS, read_settings, run_directory
from fer_search.space_tables import space_of
from fer_search.standings import read_standings
from fer_search.tuning.race import Standing
from fer_search.tuning.select import leaderboard, select_winner
from fer_search.tuning.space import Space

if TYPE_CHECKING:
    from fer_search.tradeoffs import Tradeoff
    from fer_search.tuning.importance import Importances


@dataclass(frozen=True)
class SearchResult:
    """A search as it stands: its settings, its space, and every trial with its learning curve."""

    directory: Path
    settings: dict[str, Any]
    space: Space
    trials: list[TrialRecord]

    @property
    def name(self) -> str:
        """The name that the search was given."""
        return self.directory.name

    @property
    def complete(self) -> bool:
        """Whether all trials were run to their end."""
        return len(self.trials) == self.space.num_trials and all(trial.ended for trial in self.trials)

    def leaderboard(self) -> list[TrialRecord]:
        """Return the trials, best first."""
        return leaderboard(self.trials, metric=self.space.metric)

    def importances(self) -> "Importances":
        """Return which parameters the results hang on, judged by all trials; stopped ones count by their rank."""
        from fer_search.tuning.importance import parameter_importances  # scikit-learn, which nothing else here needs

        return parameter_importances(self.trials, self.space)

    def standings(self) -> list[Standing]:
        """Return how the best did with fresh seeds, the leader first; empty where there was no race."""
        return read_standings(self.directory, self.space, self.trials)

    def rank_agreement(self) -> HorizonAgreement | None:
        """Return how the trials that were trained long rank there and here; None where none was."""
        return read_agreement(self.directory, self.trials, self.standings(), metric=self.space.metric)

    def tradeoffs(self, cost: str) -> "list[Tradeoff]":
        """Return the trials at the horizon by a cost of their networks, and which are on the Pareto front.

        The cost that the search looked at is what it recorded; any other is measured now.
        """
        from fer_search.tradeoffs import tradeoffs  # torch, likewise

        source, recorded = self.directory / JOURNAL, cost == self.space.cost
        form = form_of(self.settings["data"])
        return tradeoffs(self.trials, metric=self.space.metric, cost=cost, source=source, form=form, recorded=recorded)

    def winner(self) -> TrialRecord:
        """Return the leader of the race, or where there was none the best trial of those that reached the horizon."""
        standings = self.standings()
        if standings and not standings[0].failed:
            return next(trial for trial in self.trials if trial.number == standings[0].trial)
        return select_winner(self.trials, metric=self.space.metric)


def read_search(name: str, *, runs: Path = RUNS) -> SearchResult:
    """Read a running, interrupted or finished search from its directory."""
    directory = run_directory(runs, name)
    settings = read_settings(directory, kind="search")
    space = space_of(settings["space"], source=Path(settings["space_file"]))
    rule = "must be {!r}, which it was by default when the search began: another version of fer_search goes on with it"
    stored = settings["parameters"]
    if changed := [key for key in stored.keys() | space.parameters if stored.get(key) != space.parameters.get(key)]:
        found = [(key, rule.format(stored.get(key)), space.parameters.get(key)) for key in sorted(changed)]
        raise InvalidInput([problem(directory / SETTINGS, *each) for each in found])
    return SearchResult(directory, settings, space, read_journal(directory / JOURNAL))
