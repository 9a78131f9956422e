"""A search as it stands on disk, and what can be asked of it: who leads, what matters, at what cost."""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_search.errors import InvalidInput, problem
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import TrialRecord, read_journal
from fer_search.long_trainings import HorizonAgreement, read_agreement
from fer_search.recipe import Recipe
from fer_search.record import form_of
from fer_search.report_leaderboard import leader_line, leaderboard_rows
from fer_search.runs import RUNS, SETTINGS, existing_run, read_settings
from fer_search.space_tables import space_of
from fer_search.standings import read_standings
from fer_search.tuning.race import Standing
from fer_search.tuning.select import leaderboard, select_winner
from fer_search.tuning.space import Space

if TYPE_CHECKING:
    import pandas as pd

    from fer_search.tradeoffs import Tradeoff
    from fer_search.tuning.importance import Importances


@dataclass(frozen=True, repr=False)
class SearchResult:
    """A search as it stands: its settings, its space, and every trial with its learning curve.

    `trials` are records by number: `parameters`, `state` (RUNNING, PAUSED, COMPLETE, PRUNED or FAIL) and in `epochs`
    the metrics of each epoch. A notebook shows the leaderboard and plots. Where the objective was another one (see
    `optimize`), there is neither race nor long training, and no 95 % interval, since it may be no accuracy.
    """

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

    def rows(self) -> list[dict[str, Any]]:
        """Return the leaderboard as `compare --json` has it, a row per trial with its searched `parameters`.

        `low` and `high` are the 95 % interval of an accuracy (Wilson's, 1927), else None.
        """
        num_validation = self.settings.get("data", {}).get("num_validation")
        return leaderboard_rows(self.leaderboard(), self.space, num_validation=num_validation)

    def to_dataframe(self) -> "pd.DataFrame":
        """Return the leaderboard with a column for each searched parameter; missing values are NaN."""
        import pandas as pd

        from fer_search.row_selection import flat

        return pd.DataFrame([flat(row) for row in self.rows()])

    def importances(self) -> "Importances":
        """Return which parameters the results hang on, judged by all trials; stopped ones count by their rank.

        Raises InvalidInput below twenty trials.
        """
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

        `cost` is parameters, flops (of one face; a multiplication and an addition are 2) or latency (milliseconds of
        one face on one CPU thread); raises InvalidInput for another one. The cost that the search looked at is what it
        recorded; any other is measured now.
        """
        from fer_search.tradeoffs import tradeoffs  # torch, likewise

        source, recorded = self.directory / JOURNAL, cost == self.space.cost
        form = form_of(self.settings["data"])
        return tradeoffs(self.trials, metric=self.space.metric, cost=cost, source=source, form=form, recorded=recorded)

    def winner(self) -> TrialRecord:
        """Return the leader of the race, or where there was none the best trial of those that reached the horizon.

        Raises InvalidInput where no trial did.
        """
        standings = self.standings()
        if standings and not standings[0].failed:
            return next(trial for trial in self.trials if trial.number == standings[0].trial)
        return select_winner(self.trials, metric=self.space.metric)

    def __repr__(self) -> str:
        done = sum(trial.ended for trial in self.trials)
        line = leader_line(self.rows(), self.space)
        return f"<SearchResult {self.name!r}: {done} of {self.space.num_trials} trials have ended; {line}>"

    def _repr_html_(self) -> str:
        """Return what a notebook shows."""
        from fer_search.html_report.notebook import result_html  # matplotlib, which nothing else needs

        return result_html(self)


def read_search(name: str, *, runs: Path = RUNS) -> SearchResult:
    """Read the running, interrupted or finished search `name` from its directory in `runs`.

    Where a recipe had other defaults when it began, those are its own still. Raises InvalidInput where there is no such
    search, and where it is damaged.
    """
    directory = existing_run(runs, name)
    settings = read_settings(directory, kind="search")
    table, source = settings["space"], Path(settings["space_file"])
    space = space_of(table, source=source)
    if changed := _changed(settings, space):
        fixed = changed & settings["parameters"].keys() & Recipe.model_fields.keys() - set(space.searched)
        base = {**table.get("base", {}), **{key: settings["parameters"][key] for key in fixed}}
        space = space_of({**table, "base": base}, source=source)
    return SearchResult(directory, settings, space, read_journal(directory / JOURNAL))


def check_version(result: SearchResult) -> None:
    """Raise InvalidInput where this version's recipes have other fields than the trials of a search, or begin elsewhere
    in its space: it would go on with other trainings.
    """
    stored, now = result.settings["parameters"], result.space.parameters
    rule = "must be {}, as when the search began: another version of fer_search goes on with it"
    found = [
        (key, rule.format(repr(stored[key]) if key in stored else "nothing"), now.get(key, "nothing"))
        for key in sorted(_changed(result.settings, result.space))
    ]
    if found:
        raise InvalidInput([problem(result.directory / SETTINGS, *each) for each in found])


def _changed(settings: Mapping[str, Any], space: Space) -> set[str]:
    """Return which parameters of a space are not what they were when its search began."""
    stored, now, absent = settings["parameters"], space.parameters, object()
    return {key for key in stored.keys() | now.keys() if stored.get(key, absent) != now.get(key, absent)}
