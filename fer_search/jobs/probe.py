"""The checks that run on the cluster itself, as a job on its head: what a command would meet there, on every node.

    python -m fer_search.jobs.probe '{"runs": "/mnt/fer_search/runs", "data": "synthetic", ...}'

prints one line: MARK and the result as JSON.
"""

import json
import shutil
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import ray
from ray.util.scheduling_strategies import NodeAffinitySchedulingStrategy

from fer_search.jobs.demand import Demand
from fer_search.jobs.node_checks import Finding, check_node, package_problems, probe_file
from fer_search.runs import SETTINGS, is_taken, read_json, run_directory

MARK = "fer_search.jobs.probe: "
NODE_SECONDS = 180.0
MOST_AT_ONCE = 32
"""So many nodes read the data at the same moment."""


def probe(demand: Demand) -> dict[str, Any]:
    """Return the problems of the cluster that this runs on, what its nodes have, and the GPUs that a trial takes."""
    if missing := package_problems():
        return {"problems": missing, "nodes": [], "gpus": 0.0}
    from fer_search.tuning.connection import Resources, connected, default_gpus, resource_problems

    problems: list[Finding] = []
    fingerprint = None
    if demand.runs is not None and demand.name:
        demand, fingerprint, problems = _with_settings(demand, demand.runs, demand.name)
    with connected("auto"):
        gpus = default_gpus("auto", cpus=demand.cpus) if demand.gpus is None else demand.gpus
        problems += resource_problems(Resources(demand.cpus, gpus))
        nodes = [node for node in ray.nodes() if node["Alive"]]
        if demand.runs is None:
            answers = _ask(nodes, demand, word="")
        else:
            problems += _storage_of_driver(demand.runs, demand.disk_bytes)
            answers = [] if problems else _ask_about_storage(nodes, demand, demand.runs)
    rows = [_row(node, answer) for node, answer in zip(nodes, answers or [{}] * len(nodes), strict=True)]
    problems += _differing_data(rows, fingerprint)
    return {"problems": problems, "nodes": rows, "gpus": gpus}


def _with_settings(demand: Demand, runs: str, name: str) -> tuple[Demand, str | None, list[Finding]]:
    """Return the demand with what the run in `runs` began with, the data's fingerprint, and what is wrong with it."""
    directory = run_directory(Path(runs), name)
    if demand.is_there is False and is_taken(directory):
        return demand, None, [("name", f"must be new: {directory} is there (to go on: fer-search submit resume)", name)]
    if not (directory / SETTINGS).exists():
        missing = [("name", f"must be a run in {runs}", name)] if demand.is_there else []
        return demand, None, missing
    settings = read_json(directory / SETTINGS)
    resources = settings.get("resources", {})
    begun = replace(
        demand,
        data=settings["data"]["source"],
        tracking_uri=settings["tracking_uri"],
        cpus=resources.get("cpus", demand.cpus),
        gpus=resources.get("gpus", demand.gpus),
    )
    return begun, settings["data"]["fingerprint"], []


def _storage_of_driver(runs: str, needed: int) -> list[Finding]:
    try:
        Path(runs).mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(runs).free
    except OSError as error:
        return [_not_writable(runs, error)]
    if free < needed:
        rule = f"{runs} must have {needed / 1e9:.2f} GB free, which the checkpoints of this search may take"
        return [("runs", rule, f"{free / 1e9:.2f} GB")]
    return []


def _ask_about_storage(nodes: list[dict[str, Any]], demand: Demand, runs: str) -> list[dict[str, Any]]:
    """Ask each node, and look whether what it wrote arrived here."""
    word = uuid4().hex
    own = probe_file(runs, word, "driver")
    try:
        own.write_text(word)
        answers = _ask(nodes, demand, word=word)
        for node, answer in zip(nodes, answers, strict=True):
            written = probe_file(runs, word, node["NodeID"])
            if not answer["problems"] and not written.exists():
                rule = f"{runs} must be the same directory on every node"
                answer["problems"].append(("runs", rule, "another one than the head's"))
    except OSError as error:
        return [{"problems": [_not_writable(runs, error)]} for _ in nodes]
    finally:
        for path in (own, *(probe_file(runs, word, node["NodeID"]) for node in nodes)):
            path.unlink(missing_ok=True)
    return answers


def _not_writable(runs: str, error: OSError) -> Finding:
    return "runs", f"{runs} must be a directory that the head may write to", error.strerror


def _ask(nodes: list[dict[str, Any]], demand: Demand, *, word: str) -> list[dict[str, Any]]:
    """Run the checks on every node, so many at once."""
    session = ray._private.worker._global_node.get_session_dir_path()
    answers: list[dict[str, Any]] = []
    for start in range(0, len(nodes), MOST_AT_ONCE):
        tasks = [
            ray.remote(num_cpus=0, max_retries=0)(check_node)
            .options(scheduling_strategy=NodeAffinitySchedulingStrategy(node["NodeID"], soft=False))
            .remote(
                runs=demand.runs,
                word=word,
                node=node["NodeID"],
                data=demand.data,
                tracking_uri=_asked_store(demand, node),
                session=session,
            )
            for node in nodes[start : start + MOST_AT_ONCE]
        ]
        ray.wait(tasks, num_returns=len(tasks), timeout=NODE_SECONDS)
        answers += map(_answer, tasks)
    return answers


def _answer(task: Any) -> dict[str, Any]:
    try:
        return dict(ray.get(task, timeout=0))
    except ray.exceptions.GetTimeoutError:
        rule, value = f"must start and answer within {NODE_SECONDS:.0f} s", "no answer"
    except ray.exceptions.RayError as error:
        lines = [line.strip() for line in str(error).splitlines() if line.strip()]
        rule, value = "must start and run a task", lines[-1] if lines else type(error).__name__
    return {"problems": [("worker", rule, value)]}


def _asked_store(demand: Demand, node: dict[str, Any]) -> str | None:
    """Return the store that a node is to reach: a file is written to by the driver alone."""
    uri = demand.tracking_uri
    is_file = uri is None or uri.startswith(("sqlite", "file"))
    return None if is_file and not _is_here(node) else uri


def _is_here(node: dict[str, Any]) -> bool:
    return bool(node["NodeID"] == ray.get_runtime_context().get_node_id())


def _row(node: dict[str, Any], answer: dict[str, Any]) -> dict[str, Any]:
    resources = node["Resources"]
    return {
        "node": node["NodeManagerAddress"],
        "is_head": "node:__internal_head__" in resources,
        "cpus": resources.get("CPU", 0.0),
        "gpus": resources.get("GPU", 0.0),
        "checked": bool(answer),
        "fingerprint": answer.get("fingerprint"),
        "free_bytes": answer.get("free_bytes"),
        "problems": answer.get("problems", []),
    }


def _differing_data(rows: list[dict[str, Any]], fingerprint: str | None) -> list[Finding]:
    """Return whether the nodes, and the run that goes on, see the same data."""
    found = {row["node"]: row["fingerprint"] for row in rows if row["fingerprint"] is not None}
    expected = fingerprint or next(iter(found.values()), None)
    rule = f"must have the fingerprint {expected}, as {'the run began with' if fingerprint else 'on the first node'}"
    return [
        ("data", f"{rule}: another file on node {node}", value) for node, value in found.items() if value != expected
    ]


if __name__ == "__main__":
    print(MARK + json.dumps(probe(Demand(**json.loads(sys.argv[1])))))  # noqa: T201
