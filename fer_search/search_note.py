"""What MLflow describes a search and what belongs to it by, in Markdown: asked for, found, and how to go on."""

from collections import Counter
from collections.abc import Mapping, Sequence
from typing import Any

from optuna.distributions import CategoricalDistribution
from rich.table import Table
from rich.text import Text

from fer_search.long_trainings import LongTraining, best_of_seeds, read_retraining, retrain_directory
from fer_search.recipe import Recipe
from fer_search.report import STATE_WORDS, short_value, training_table
from fer_search.report_leaderboard import NUM_SHOWN_SIDE_BY_SIDE, leaderboard_rows, leaderboard_table, parameters_table
from fer_search.report_stages import race_table, race_verdict
from fer_search.report_status import duration
from fer_search.search_result import SearchResult
from fer_search.tracking_links import Links
from fer_search.training.metrics import summary
from fer_search.tuning.race import Standing
from fer_search.tuning.space import Dimension

GAP = "&ensp;"
"""Behind each cell: MLflow's UI leaves out the space between the columns of a table."""
MOST_CHARACTERS = 8000
"""What MLflow takes as a tag."""


def search_note(result: SearchResult, links: Links | None = None) -> str:
    """Return the description of a search's run, as the search, its race and its winner's training stand on disk."""
    standings, found = result.standings(), read_retraining(retrain_directory(result.directory, None))
    winner = best_of_seeds(found) if found else None
    parts = [_heading(result), _facts(result)]
    if links is not None and result.trials:
        shown = {"The trials, best first": links.trials, "their charts": links.charts}
        shown |= {"the best side by side": links.compare} if links.compare else {}
        parts.insert(1, " · ".join(f"[{text}]({link})" for text, link in shown.items()))
    num_validation = result.settings["data"]["num_validation"]
    rows = leaderboard_rows(result.leaderboard(), result.space, num_validation=num_validation)
    if rows and rows[0][result.space.metric] is not None:
        first = next((row for row in rows if row["trial"] == 0), None)
        parts.insert(1, _verdict(rows[0], result.space.metric, standings, winner))
        best = leaderboard_table(rows[:NUM_SHOWN_SIDE_BY_SIDE], result.space, title="")
        parts += ["### The best trials", markdown_table(best), markdown_table(parameters_table(rows, first))]
    if standings:
        parts += ["### The race", markdown_table(race_table(standings, title=""))]
    if winner is not None:
        parts += ["### The winner", *_training(winner.result, num_seeds=len(found))]
    parts += ["### To go on", _commands(result)]
    return _fitting(parts)


def race_note(name: str, standings: Sequence[Standing]) -> str:
    """Return the description of the run of a search's race."""
    text = f"The race of search **{name}**: its best trials, and its first, again with fresh seeds."
    return _fitting([text, markdown_table(race_table(list(standings), title=""))] if standings else [text])


def training_note(training: LongTraining) -> str:
    """Return the description of the run of a finished training."""
    return _fitting(_training(training.result, num_seeds=1))


def markdown_table(table: Table) -> str:
    """Return a terminal's table in Markdown: what was bold stays so, colours are left out, its caption is below."""
    columns = [[_marked(str(cell)) for cell in column.cells] for column in table.columns]
    sides = ["--:" if column.justify == "right" else ":--" for column in table.columns]
    heading = [_marked(str(column.header)) for column in table.columns]
    lines = [[f"{cell}{GAP}" for cell in cells] for cells in (heading, *zip(*columns, strict=True))]
    lines.insert(1, sides)
    caption = Text.from_markup(str(table.caption or "")).plain.replace("\n", " ").replace("*", r"\*")
    return "\n".join(f"| {' | '.join(line)} |" for line in lines) + (f"\n\n{caption}" if caption else "")


def _heading(result: SearchResult) -> str:
    counts = Counter(trial.state for trial in result.trials)
    states = ", ".join(f"{counts[state]} {word}" for state, word in STATE_WORDS.items() if counts[state])
    if not result.trials:
        return f"Search **{result.name}** has begun; how it stands: `fer-search status {result.name}`"
    if not result.complete:
        done = f"not finished, {len(result.trials)} of {result.space.num_trials} trials ({states})"
        return f"Search **{result.name}**: {done}; to go on: `fer-search resume {result.name}`"
    return f"Search **{result.name}**: finished, {len(result.trials)} trials ({states})"


def _verdict(best: Mapping[str, Any], metric: str, standings: Sequence[Standing], winner: LongTraining | None) -> str:
    """Return in a line who leads: it is among the few that MLflow shows of a description that is not opened."""
    interval = "" if best["low"] is None else f" (95 % interval {best['low']:.1%} to {best['high']:.1%})"
    parts = [f"Best in the search: **trial {best['trial']}**, `{metric}` {best[metric]:.4f}{interval}"]
    if standings:
        parts.append(f"race: **{race_verdict(standings)}**")
    if winner is not None:
        public = winner.result["metrics"]["public"][winner.result["prediction"]["views"]]
        parts.append(f"{winner.result['data']['public_label']}: **{public['accuracy']:.2%}**")
    return "; ".join(parts)


def _facts(result: SearchResult) -> str:
    space, data = result.space, result.settings["data"]
    epochs = sum(len(trial.epochs) for trial in result.trials)
    seconds = sum(metrics.get("epoch_seconds", 0.0) for trial in result.trials for metrics in trial.epochs)
    default = Recipe().model_dump()
    fixed = [
        f"`{key}` {short_value(value)}"
        for key, value in space.parameters.items()
        if key not in space.searched and value != default[key]
    ]
    rungs = ", ".join(map(str, space.rungs)) or "none"
    facts = {
        "searched": "<br>".join(f"`{each.name}` {_domain(each)}" for each in space.dimensions.values()),
        "fixed, unlike the defaults": ", ".join(fixed) or "nothing",
        "how": f"searcher {space.searcher}, scheduler {space.scheduler}; rungs {rungs}; "
        f"compared by `{space.metric}` after {space.horizon} epochs",
        "data": f"{data['source'].rpartition('/')[2]}: {data['num_fit']:,} faces to train on, "
        f"{data['num_validation']:,} to choose by (search-validation); fingerprint {data['fingerprint'][:12]}",
        "budget": f"{space.num_trials} trials; spent {epochs:,} epochs, {duration(seconds)} of training",
    }
    rows = "\n".join(f"| {name} | {text} |" for name, text in facts.items())
    return f"| | |\n| :-- | :-- |\n{rows}"


def _domain(dimension: Dimension) -> str:
    domain = dimension.domain
    if isinstance(domain, CategoricalDistribution):
        return "one of " + ", ".join(map(str, domain.choices))
    return f"{short_value(domain.low)} to {short_value(domain.high)}" + (", log" if domain.log else "")


def _training(result: Mapping[str, Any], *, num_seeds: int) -> list[str]:
    views, label = result["prediction"]["views"], result["data"]["public_label"]
    seeds = f" The best of {num_seeds} seeds on search-validation." if num_seeds > 1 else ""
    text = f"{result['recipe']['epochs']} epochs; **{label}: {summary(result['metrics']['public'][views])}**.{seeds}"
    return [text, markdown_table(training_table(result, title=""))]


def _commands(result: SearchResult) -> str:
    name = result.name
    commands = [f"fer-search compare {name}", f"fer-search race {name}", f"fer-search retrain {name}"]
    commands += [f"fer-search export {name}", f"fer-search report {name}"]
    return "\n".join(f"    {command}" for command in commands)


def _marked(cell: str) -> str:
    text = Text.from_markup(cell)
    plain = text.plain.replace("*", r"\*").replace("|", r"\|")
    return f"**{plain}**" if any(str(span.style) == "bold" for span in text.spans) else plain


def _fitting(parts: Sequence[str]) -> str:
    text = "\n\n".join(parts)
    return text if len(text) <= MOST_CHARACTERS else f"{text[: MOST_CHARACTERS - 2]}\n…"
