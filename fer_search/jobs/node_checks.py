"""What is checked on each node of a cluster, in a task of its own there. It begins with what any node can do."""

import os
import shutil
import time
from importlib import metadata
from pathlib import Path
from typing import Any

from packaging.requirements import Requirement

Finding = tuple[str, str, Any]
"""What is wrong: key, rule, value."""

SEEN_SECONDS = 10.0
"""How long a file may take to be seen on another node."""
TEST_BYTES = 2**20
LEAST_FREE_SHARE = 0.05
"""Where less of its disk is free, Ray neither stores objects nor starts workers on a node."""


def probe_file(runs: str, word: str, name: str) -> Path:
    """Return where `name`, the driver or a node, writes `word`, which is another one in each probe, for the other."""
    return Path(runs) / f".probe_{word}_{name}"


def check_node(
    *, runs: str | None, word: str, node: str, data: str | None, tracking_uri: str | None, session: str
) -> dict[str, Any]:
    """Return the `problems` of the node that this runs on, its free bytes in `runs`, and the fingerprint of the data.

    `word` is what the driver wrote to its probe file in `runs`, `session` a directory of Ray's on the node's own disk.
    """
    problems = [*package_problems(), *disk_problems(session)]
    if runs is not None:
        problems += storage_problems(runs, word=word, node=node)
    fingerprint = None
    if data is not None and not problems:
        from fer_search.data.fer2013 import load_faces
        from fer_search.errors import InvalidInput

        try:
            fingerprint = load_faces(data).fingerprint()
        except (InvalidInput, OSError) as error:
            problems.append(("data", f"must be readable on every node ({error})", data))
    if tracking_uri is not None and not problems:
        problems += tracking_problems(tracking_uri)
    free = shutil.disk_usage(runs).free if runs is not None and Path(runs).is_dir() else None
    return {"problems": problems, "fingerprint": fingerprint, "free_bytes": free}


def package_problems() -> list[Finding]:
    """Return which of the requirements of this version of the package the node does not meet."""
    problems: list[Finding] = []
    for requirement in map(Requirement, metadata.requires("fer-search") or ()):
        if requirement.marker is not None and not requirement.marker.evaluate({"extra": ""}):
            continue
        try:
            found = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            found = None
        if found is None or not requirement.specifier.contains(found, prereleases=True):
            rule = f"must be {requirement.name}{requirement.specifier}: install the same on every node"
            problems.append(("package", rule, found))
    return problems


def disk_problems(session: str) -> list[Finding]:
    """Return whether the node's own disk is about to be full."""
    usage = shutil.disk_usage(session)
    if usage.free >= LEAST_FREE_SHARE * usage.total:
        return []
    rule = f"must have {LEAST_FREE_SHARE:.0%} of its disk free, or Ray starts nothing there: make room in {session}"
    return [("disk", rule, f"{usage.free / usage.total:.1%}")]


def storage_problems(runs: str, *, word: str, node: str) -> list[Finding]:
    """Return whether `runs` is the driver's, and takes a file from this node."""
    rule = f"{runs} must be a writable directory, the same on every node"
    try:
        if not _reads(probe_file(runs, word, "driver"), word):
            return [("runs", rule, "another directory than the driver's, or none")]
        with probe_file(runs, word, node).open("w") as file:
            file.write(word.ljust(TEST_BYTES))
            file.flush()
            os.fsync(file.fileno())
    except OSError as error:
        return [("runs", rule, error.strerror or str(error))]
    return []


def tracking_problems(uri: str) -> list[Finding]:
    """Return whether the MLflow store takes what this node may send."""
    from fer_search.tracking import answer_problem

    answer = answer_problem(uri)
    rule = f"{uri} must answer (credentials: MLFLOW_TRACKING_USERNAME and _PASSWORD in the node's environment)"
    return [] if answer is None else [("tracking", rule, answer)]


def _reads(path: Path, word: str) -> bool:
    deadline = time.monotonic() + SEEN_SECONDS
    while time.monotonic() < deadline:
        if path.exists():
            return path.read_text() == word
        time.sleep(0.2)
    return False
