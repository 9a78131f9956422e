"""`report`: the page of a search, written beside it and sent to MLflow."""

from pathlib import Path

from fer_search.html_report.page import write_report
from fer_search.runs import REPORT, RUNS
from fer_search.search_result import read_search


def report(name: str, *, output: Path | None = None, runs: Path = RUNS) -> Path:
    """Write the report of a search, running or not, to the directory `output` and return the page's path.

    By default it is `<runs>/<name>/report`, and MLflow gets it too, with the search's run. What has not been done yet,
    a race or the winner's training, is said to be missing.
    """
    result = read_search(name, runs=runs)
    page = write_report(result, output or result.directory / REPORT)
    if output is None:
        from fer_search.presentation import present  # MLflow takes seconds to load

        present(result)
    return page
