"""A command of ours, queued as a job."""

from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path

from fer_search.jobs import COLUMNS
from fer_search.jobs.client import Cluster
from fer_search.jobs.command import Command


def submit_command(
    cluster: Cluster,
    command: Command,
    directory: Path,
    *,
    resources: Mapping[str, float] | None = None,
    columns: int | None = None,
) -> str:
    """Queue the command in a copy of a `working_dir` with its files, and return the job's id.

    `columns` is how wide a terminal shows it. `resources` are those of the command's own process, in the Jobs API's
    words; by default it takes none.
    """
    job = "-".join(filter(None, (command.run, command.name, datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f"))))
    cluster.submit(
        "fer_search",
        command.arguments,
        working_dir=directory,
        job=job,
        run=command.run,
        environment={} if columns is None else {COLUMNS: str(columns)},
        resources=resources or {},
    )
    return job
