"""Where MLflow's UI shows a search, behind the address of whatever server has its store. Loads nothing of MLflow."""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from urllib.parse import quote

from fer_search.runs import read_json, write_json

LINKS = "links.json"
TRAINING = "workflowType=machine_learning"
"""Without it, MLflow's pages are at first about language models."""
LOCAL_UI = "http://127.0.0.1:5000"
"""What `fer-search ui` serves unless it is told otherwise."""


@dataclass(frozen=True)
class Links:
    """What follows the address of the server of a store: a search's run, its trials in their saved view as a table and
    as charts, and its best trials side by side, if there are two.
    """

    uri: str
    run: str
    trials: str
    charts: str
    compare: str | None

    @classmethod
    def of(cls, uri: str, experiment: str, *, run: str, view: str, best: Sequence[str]) -> "Links":
        """Return them for the ids of experiment, run and saved view, and those of the best trials' runs."""
        here = f"#/experiments/{experiment}/runs"
        runs, experiments = (quote(json.dumps(ids, separators=(",", ":"))) for ids in (list(best), [experiment]))
        trials = f"{here}?viewStateShareKey={view}&{TRAINING}"
        compare = f"#/compare-runs?runs={runs}&experiments={experiments}&{TRAINING}" if len(best) > 1 else None
        return cls(uri, f"{here}/{run}?{TRAINING}", trials, f"{trials}&compareRunsMode=CHART", compare)


def write_links(search: Path, links: Links) -> None:
    """Put on disk where MLflow's UI shows the search in a directory."""
    write_json(search / LINKS, asdict(links))


def link_lines(search: Path) -> list[str]:
    """Return what to tell a person who wants to see a search in MLflow's UI; empty where MLflow does not have it.

    A store that is a data base has an address only while `fer-search ui`, or a server of MLflow, is at work.
    """
    if not (search / LINKS).exists():
        return []
    links = read_json(search / LINKS)
    uri, served = links["uri"], links["uri"].startswith(("http://", "https://"))
    base = uri.rstrip("/") if served else LOCAL_UI
    lines = [f"MLflow has the search: {base}/{links['run']}", f"its trials, best first: {base}/{links['trials']}"]
    if not served:
        local = uri == f"sqlite:///{search.parent / 'mlflow.db'}"
        command = f"fer-search ui --runs {search.parent}" if local else f"mlflow ui --backend-store-uri {uri}"
        lines.insert(0, f"these links work while this runs: {command}")
    return lines
