"""The page of a search: its sections, from what is on disk."""

import shlex
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Any

from fer_search.atomic import replacing
from fer_search.errors import InvalidInput
from fer_search.html_report import search_plots
from fer_search.html_report.section import Section
from fer_search.html_report.tables import Table, from_terminal, trials_table
from fer_search.html_report.templates import template
from fer_search.long_trainings import best_of_seeds, read_retraining, retrain_directory
from fer_search.report_stages import race_table
from fer_search.report_status import duration
from fer_search.search_result import SearchResult

if TYPE_CHECKING:
    from fer_search.tuning.importance import Importances

PAGE = "report.html"
NUM_ROWS = 20
NUM_CONTOURS = 2  # parameters of a contour plot


def write_report(result: SearchResult, directory: Path) -> Path:
    """Write the report of a search, running or not, and its plots as images to `directory`; return the page's path.

    The page holds all that it shows and needs no network.
    """
    sections = report_sections(result)
    page = template("template.html").render(name=result.name, subject="search report", sections=sections)
    directory.mkdir(parents=True, exist_ok=True)
    for section in sections:
        for plot in section.plots:
            plot.save(directory)
    with replacing(directory / PAGE) as temporary:
        temporary.write_text(page, encoding="utf-8")
    return directory / PAGE


def report_sections(result: SearchResult) -> list[Section]:
    """Return the sections, those of what has not been done yet with the command that does it."""
    rows = result.rows()
    if not rows or rows[0][result.space.metric] is None:
        return [Section("Summary", "No trial has anything to compare yet.")]
    with ThreadPoolExecutor(1) as pool:
        importances = pool.submit(result.importances)  # its forests leave the interpreter to the drawing
        return [
            _summary(result, rows),
            _trials(result, rows),
            _parameters(result, importances),
            _race(result),
            *_winner(result),
            _how(result),
        ]


def _summary(result: SearchResult, rows: list[dict[str, Any]]) -> Section:
    space, data, best = result.space, result.settings["data"], rows[0]
    states: dict[str, int] = {}
    for trial in result.trials:
        states[trial.state] = states.get(trial.state, 0) + 1
    value = f"{best[space.metric]:.4f}"
    if best["low"] is not None:
        value = f"{best[space.metric]:.2%} (95 % interval {best['low']:.2%} to {best['high']:.2%})"
    seconds = sum(metrics.get("epoch_seconds", 0.0) for trial in result.trials for metrics in trial.epochs)
    facts = [
        ["best trial", f"{best['trial']}: {space.metric} {value} after {best['epochs']} of {space.horizon} epochs"],
        [
            "trials",
            ", ".join(f"{count} {state}" for state, count in sorted(states.items())) + f" of {space.num_trials}",
        ],
        ["search", f"searcher {space.searcher}, scheduler {space.scheduler}, rungs {list(space.rungs)}"],
        [
            "data",
            f"{data['source']}: {data['num_fit']:,} to train on, {data['num_validation']:,} for search-validation",
        ],
        ["training time", f"{duration(seconds)} of all trials together"],
    ]
    text = (
        "The best of many trials looks better than it is. What counts are figures of images and seeds that had no part "
        "in the choice: the race, and the winner's on PublicTest."
    )
    return Section("Summary", text, [Table(["", ""], facts)], [search_plots.learning_curves(result)])


def _trials(result: SearchResult, rows: list[dict[str, Any]]) -> Section:
    table = trials_table(rows, result.space, limit=NUM_ROWS)
    return Section("Trials", "", [table], [search_plots.epochs_spent(result)])


def _parameters(result: SearchResult, importances: "Future[Importances]") -> Section:
    plots, names = [search_plots.parallel_coordinates(result), search_plots.slices(result)], list(result.space.searched)
    for plot in plots:
        plot.draw()
    text = ""
    try:
        found = importances.result()
    except InvalidInput as error:
        text = f"No importances: {error}."
    else:
        plots.insert(1, search_plots.importances(found))
        names = [each.parameter for each in found.parameters]
    if len(names) >= NUM_CONTOURS and (contour := search_plots.contour(result, names[:NUM_CONTOURS])) is not None:
        plots.append(contour)
    return Section("Parameters", text, plots=plots)


def _race(result: SearchResult) -> Section:
    standings = result.standings()
    if not standings:
        return Section("Race", f"There was none yet: fer-search race {result.name}")
    table = from_terminal(race_table(standings, title=""))
    return Section("Race", "", [table], [search_plots.race(standings)])


def _winner(result: SearchResult) -> list[Section]:
    found = read_retraining(retrain_directory(result.directory, None))
    if not found:
        return [Section("Winner", f"It is not trained to the end yet: fer-search retrain {result.name}")]
    from fer_search.html_report.winner import winner_sections  # torch and scikit-learn, which nothing else here needs

    return winner_sections(result, best_of_seeds(found))


def _how(result: SearchResult) -> Section:
    settings = result.settings
    command = [
        "fer-search",
        "search",
        settings["space_file"],
        "--name",
        result.name,
        "--data",
        settings["data"]["source"],
    ]
    command += ["--trials", str(result.space.num_trials)]
    retrain = f"fer-search retrain {result.name}"
    if trained := read_retraining(retrain_directory(result.directory, None)):
        retrain += f" --epochs {trained[0].result['recipe']['epochs']} --seeds {len(trained)}"
    rows = [
        ["search", shlex.join(command)],
        ["race", f"fer-search race {result.name}"],
        ["retrain and export", f"{retrain} && fer-search export {result.name}"],
        ["versions", ", ".join(f"{name} {version}" for name, version in settings["versions"].items())],
        ["data fingerprint", settings["data"]["fingerprint"]],
        ["seed of the search", str(result.space.seed)],
    ]
    text = "Settings that were given on the command line are in the search's settings.json, under space.base."
    return Section("How to reproduce", text, [Table(["", ""], rows)])
