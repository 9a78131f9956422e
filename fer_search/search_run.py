"""A search as a run on disk: on record while its trials run."""

from pathlib import Path
from typing import Any

from optuna.distributions import distribution_to_json

from fer_search.chance import ChanceLevel
from fer_search.data.splits import Splits
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal
from fer_search.races import objective_on
from fer_search.record import Follow, recorded
from fer_search.search_note import search_note
from fer_search.search_result import SearchResult
from fer_search.searches import DiskNeed, search_settings
from fer_search.tradeoffs import measure_of
from fer_search.tuning.connection import Resources, check_resources, connected, num_slots
from fer_search.tuning.limit import Budget
from fer_search.tuning.run import run_trials
from fer_search.tuning.space import Space
from fer_search.tuning.state import SearchState
from fer_search.warm_start import taken_over


def run_search(
    directory: Path,
    settings: dict[str, Any],
    space: Space,
    splits: Splits,
    *,
    budget: Budget,
    follow: Follow | None,
) -> None:
    """Run the search in `directory` from where its journal is; `settings` are written when all is known to be right.

    Raises InvalidInput, before anything is written, where the budget is spent or no node can run a trial.
    """
    resources, form = Resources(**settings["resources"]), splits.fit.form
    budget.check(Journal(directory / JOURNAL), gpus=resources.gpus)
    with connected(settings["address"]):
        check_resources(resources)  # the last thing that can be wrong, so nothing is written before it
        with recorded(
            directory,
            {**settings, "num_trials": space.num_trials},
            title=directory.name,
            tags={"space": Path(settings["space_file"]).name, "search": directory.name},
            follow=follow,
            parent_params={**search_settings(settings), "horizon": space.horizon},
            study={
                "metric": space.metric,
                "domains": {name: distribution_to_json(domain) for name, domain in space.domains.items()},
            },
            note=search_note(SearchResult(directory, settings, space, trials=[])),
        ) as outcome:
            DiskNeed.of(space, form).announce(directory, num_workers=resources.max_concurrent or num_slots(resources))
            # The journal anew, now that no other process can write to it.
            learned_nothing = ChanceLevel.of(splits.validation.labels, len(form.classes)).verdict
            past = taken_over(settings, space)
            measure = None if space.cost is None else measure_of(space.cost, form)
            state = SearchState(
                space, Journal(directory / JOURNAL), verdict=learned_nothing, past=past, measure=measure
            )
            outcome.finished = run_trials(
                objective_on(splits, resources),
                state,
                directory,
                resources=resources,
                address=settings["address"],
                budget=budget,
            )
