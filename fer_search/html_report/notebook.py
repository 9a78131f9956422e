"""What a notebook shows of a search: its leaderboard, the verdict, and two plots."""

from fer_search.html_report import search_plots
from fer_search.html_report.tables import trials_table
from fer_search.html_report.templates import template
from fer_search.report_leaderboard import leader_line
from fer_search.report_stages import race_verdict
from fer_search.search_result import SearchResult

NUM_ROWS = 10


def result_html(result: SearchResult) -> str:
    """Return a fragment for a light page or a dark one: text and lines have the colour of what is around them."""
    rows = result.rows()
    plots = []
    if any(trial.epochs for trial in result.trials):
        plots = [search_plots.learning_curves(result), search_plots.parallel_coordinates(result)]
    standings = result.standings()
    if standings:
        plots.append(search_plots.race(standings))
        verdict = f"Race with fresh seeds: {race_verdict(standings)}."
    else:
        verdict = "The best of many trials looks better than it is."
        if result.settings.get("kind") == "search":
            verdict += f" fer_search.race({result.name!r}) trains the best again with fresh seeds."
    return template("notebook.html").render(
        result=result,
        leader=leader_line(rows, result.space),
        verdict=verdict,
        table=trials_table(rows, result.space, limit=NUM_ROWS) if rows else None,
        plots=plots,
    )
