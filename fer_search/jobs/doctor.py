"""The checks of a cluster before anything is queued there, as this side of them sees it."""

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any
from uuid import uuid4

from fer_search.errors import InvalidInput, problem
from fer_search.jobs.client import Cluster
from fer_search.jobs.demand import Demand
from fer_search.jobs.probe import MARK

PROBE = "fer_search.jobs.probe"
LAST_LINES = 5


@dataclass(frozen=True)
class Examination:
    """A cluster as its own nodes saw it; `gpus` is what a trial takes there, `problems` is what must be mended."""

    address: str
    nodes: list[dict[str, Any]]
    gpus: float
    problems: list[str]

    @property
    def has_gpus(self) -> bool:
        """Whether any node that is up has a GPU."""
        return any(node["gpus"] for node in self.nodes)


def examine(cluster: Cluster, demand: Demand, directory: Path) -> Examination:
    """Run the checks as a job of their own in a copy of a `working_dir`, the one that a command is to run in, if any.

    Raises InvalidInput where that job itself cannot run.
    """
    job = f"doctor-{uuid4().hex[:12]}"
    printed: list[str] = []
    arguments = [json.dumps(asdict(demand))]
    cluster.submit(PROBE, arguments, working_dir=directory, job=job, run="", environment={}, resources={})
    ended = cluster.follow(job, printed.append)
    log = "".join(printed)
    found = next((line for line in log.splitlines() if line.startswith(MARK)), None)
    if found is None:
        lines = [line for line in (log or ended.message).splitlines() if line.strip()][-LAST_LINES:]
        rule = "must run there (the `python` of its nodes must be the one that Ray runs in, with all packages)"
        raise InvalidInput(problem(cluster.address, "checks", rule, " | ".join(lines)))
    cluster.delete(job)
    result = json.loads(found.removeprefix(MARK))
    problems = [problem(cluster.address, *each) for each in result["problems"]]
    problems += [
        problem(cluster.address, f"node {node['node']}: {key}", rule, value)
        for node in result["nodes"]
        for key, rule, value in node["problems"]
    ]
    return Examination(cluster.address, result["nodes"], result["gpus"], problems)
