"""A command of ours, queued as a job."""

from collections.abc import Mapping
from datetime import UTC, datetime

from fer_search.jobs import COLUMNS
from fer_search.jobs.client import Cluster
from fer_search.jobs.command import Command
from fer_search.jobs.working_dir import working_dir


def submit_command(
    cluster: Cluster, command: Command, *, resources: Mapping[str, float] | None = None, columns: int | None = None
) -> str:
    """Queue the command and return the job's id; `columns` is how wide a terminal shows it.

    `resources` are those of the command's own process, in the Jobs API's words; by default it takes none.
    """
    job = "-".join(filter(None, (command.run, command.name, datetime.now(UTC).strftime("%Y%m%d-%H%M%S-%f"))))
    with working_dir(command.files) as directory:
        cluster.submit(
            ["-m", "fer_search", *command.arguments],
            working_dir=directory,
            job=job,
            run=command.run,
            environment={} if columns is None else {COLUMNS: str(columns)},
            resources=resources or {},
        )
    return job
