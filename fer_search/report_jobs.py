"""A cluster and its jobs, as a person reads them."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from rich.markup import escape
from rich.table import Table

from fer_search.report import new_table
from fer_search.report_status import ago, duration

if TYPE_CHECKING:
    from fer_search.jobs.client import Job

JOB_STYLES = {"RUNNING": "cyan", "PENDING": "cyan", "SUCCEEDED": "green", "STOPPED": "yellow", "FAILED": "red"}


def jobs_table(jobs: "Sequence[Job]", *, title: str) -> Table:
    """Return a row per job: what it runs, how it stands, since when and for how long."""
    table = new_table(f"{title}: jobs")
    for heading in ("job", "run", "status", "started", "took", "command"):
        table.add_column(heading, overflow="fold")
    for job in jobs:
        code = f" ({job.exit_code})" if job.exit_code else ""
        took = duration(job.ended - job.started) if job.started and job.ended else ""
        table.add_row(
            escape(job.id),
            escape(job.run),
            f"[{JOB_STYLES.get(job.status, 'default')}]{job.status}{code}[/]",
            f"{ago(job.started)} ago" if job.started else "",
            took,
            escape(job.command),
        )
    return table


def nodes_table(nodes: Sequence[dict[str, Any]], *, title: str) -> Table:
    """Return a row per node: what it has, and whether it is as it must be."""
    table = new_table(f"{title}: nodes")
    for heading in ("node", "CPUs", "GPUs", "free in runs", "checks"):
        table.add_column(heading)
    for node in nodes:
        free, wrong = node["free_bytes"], len(node["problems"])
        verdict = f"[red]{wrong} failed[/]" if wrong else "[green]passed[/]" if node["checked"] else "not made"
        table.add_row(
            f"{node['node']}{' (head)' if node['is_head'] else ''}",
            f"{node['cpus']:g}",
            f"{node['gpus']:g}",
            "" if free is None else f"{free / 1e9:,.1f} GB",
            verdict,
        )
    return table
