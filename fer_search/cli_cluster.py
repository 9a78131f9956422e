"""The commands for a cluster: check it, submit a command to it, follow, list and stop what was submitted."""

import sys
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_search.cli_options import CpusOption, GpusOption, JsonOption
from fer_search.errors import InvalidInput
from fer_search.printing import print_json, print_table
from fer_search.report_jobs import jobs_table, nodes_table
from fer_search.terminal import err, out

if TYPE_CHECKING:
    from fer_search.jobs.client import Cluster
    from fer_search.jobs.command import Command

ClusterOption = Annotated[
    str,
    typer.Option(
        "--address",
        envvar="RAY_API_SERVER_ADDRESS",
        help="The cluster's dashboard, as it is reached from here: a tunnel to the head, as a rule.",
    ),
]
JobArgument = Annotated[str, typer.Argument(metavar="JOB", help="A job, or a run: its newest job.")]
DASHBOARD = "http://127.0.0.1:8265"


def submit(
    context: typer.Context,
    address: ClusterOption = DASHBOARD,
    follow: Annotated[
        bool, typer.Option("--follow/--no-follow", help="Show what the job prints until it ends; Ctrl-C lets it run.")
    ] = True,
) -> None:
    """Run a command on a Ray cluster: search, resume, race, retrain, calibrate, train, export, compare, status, ...

    It is written as it would be here; this copy of fer_search and the space file travel along, `--runs` and `--data`
    are places that all nodes of the cluster reach. Everything is checked before anything is queued.

    Example: `fer-search submit search search_spaces/full.toml --name first --runs /mnt/fer_search/runs --data
    /mnt/fer_search/data/fer2013.csv`
    """
    from fer_search.jobs.command import read_command
    from fer_search.jobs.demand import IN_THE_JOB, IS_THERE, Demand
    from fer_search.jobs.doctor import examine
    from fer_search.jobs.submission import submit_command
    from fer_search.jobs.working_dir import working_dir

    assert context.parent is not None
    command = read_command(context.parent.command, context.args, parent=context)
    disk_bytes = _checkpoint_bytes(command)
    cluster = _connect(address)
    resources = {}
    with working_dir(command.files) as directory:
        if command.name in IS_THERE:
            with err.status("checking the cluster"):
                examination = examine(cluster, Demand.of(command, disk_bytes=disk_bytes), directory)
            if examination.problems:
                raise InvalidInput(examination.problems)
            if command.name in IN_THE_JOB:
                resources = {"entrypoint_num_gpus": 1} if examination.has_gpus else {"entrypoint_num_cpus": 1}
        job = submit_command(cluster, command, directory, resources=resources, columns=_columns())
    if not follow:
        out.print(job, markup=False)
        return
    err.print(f"submitted as {job}", markup=False)
    _follow(cluster, job)


def doctor(
    address: ClusterOption = DASHBOARD,
    runs: Annotated[
        Path | None, typer.Option("--runs", help="The directory that all nodes are to share, and to write to.")
    ] = None,
    data: Annotated[str | None, typer.Option("--data", help="Data that all nodes are to read.")] = None,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow server to be reached.")
    ] = None,
    cpus: CpusOption = 1,
    gpus: GpusOption = None,
    as_json: JsonOption = False,
) -> None:
    """Check a cluster as submit does: head, versions, nodes, shared storage, data, tracking server.

    Example: `fer-search doctor --runs /mnt/fer_search/runs --data /mnt/fer_search/data/fer2013.csv`
    """
    from fer_search.jobs.demand import Demand
    from fer_search.jobs.doctor import examine
    from fer_search.jobs.working_dir import working_dir

    where = None if runs is None else str(runs)
    demand = Demand(runs=where, data=data, tracking_uri=tracking_uri, cpus=cpus, gpus=gpus)
    cluster = _connect(address)
    with err.status("checking the cluster"), working_dir({}) as directory:
        found = examine(cluster, demand, directory)
    if as_json:
        print_json(asdict(found))
    else:
        print_table(nodes_table(found.nodes, title=address))
    if found.problems:
        raise InvalidInput(found.problems)
    if not as_json:
        out.print(f"all is well; a trial takes {cpus} CPUs and {found.gpus:g} GPUs")


def list_jobs(address: ClusterOption = DASHBOARD, as_json: JsonOption = False) -> None:
    """List what was submitted to a cluster, the newest first.

    Example: `fer-search list`
    """
    jobs = _connect(address).jobs()
    if as_json:
        print_json([asdict(job) for job in jobs])
        return
    print_table(jobs_table(jobs, title=address))


def logs(
    job: JobArgument,
    address: ClusterOption = DASHBOARD,
    follow: Annotated[bool, typer.Option("--follow", help="Go on until it ends; Ctrl-C lets it run.")] = False,
) -> None:
    """Print what a job has printed, and with --follow what it prints until its end.

    Example: `fer-search logs first --follow`
    """
    cluster = _connect(address)
    found = cluster.find(job)
    if follow:
        _follow(cluster, found.id)
    else:
        _show(cluster.logs(found.id))


def stop(job: JobArgument, address: ClusterOption = DASHBOARD) -> None:
    """Stop a job: each trial after the epoch that it is in; `fer-search submit resume` goes on.

    Example: `fer-search stop first`
    """
    cluster = _connect(address)
    found = cluster.find(job)
    if found.over:
        err.print(f"{found.id} has ended already: {found.status}", markup=False)
        return
    with err.status("its trials finish their epochs"):
        ended = cluster.stop(found.id)
    err.print(f"{ended.id}: {ended.status}", markup=False)
    if not ended.over:
        raise typer.Exit(1)


def status_on_cluster(name: str, address: str, runs: Path, *, as_json: bool) -> None:
    """Print how a run on a cluster stands, as seen there."""
    from fer_search.cli import app
    from fer_search.jobs.command import read_command
    from fer_search.jobs.submission import submit_command
    from fer_search.jobs.working_dir import working_dir

    words = ["status", name, "--runs", str(runs), *(["--json"] if as_json else [])]
    command = read_command(typer.main.get_command(app), words)
    cluster = _connect(address)
    with working_dir(command.files) as directory:
        job = submit_command(cluster, command, directory, columns=_columns())
    _follow(cluster, job)


def _connect(address: str) -> "Cluster":
    from fer_search.jobs.client import Cluster

    return Cluster(address)


def _follow(cluster: "Cluster", job: str) -> None:
    """Show what a job prints, and end as it does."""
    try:
        ended = cluster.follow(job, _show)
    except KeyboardInterrupt:
        err.print(f"it goes on; to see it again: fer-search logs {job} --follow; to stop it: fer-search stop {job}")
        raise typer.Exit(130) from None
    if ended.status == "STOPPED":
        err.print(f"{job} was stopped", markup=False)
        raise typer.Exit(130)
    if ended.status != "SUCCEEDED":
        err.print(f"{job}: {ended.message}", markup=False, soft_wrap=True)
        raise typer.Exit(ended.exit_code or 1)


def _columns() -> int | None:
    """Return how wide the terminal is that shows what a job prints, if one does."""
    return out.width if out.is_terminal else None


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def _checkpoint_bytes(command: "Command") -> int:
    """Check a search's space as far as that takes no data, and return what its checkpoints may take at the least."""
    from fer_search.recipe import parse_overrides
    from fer_search.searches import DiskNeed, read_space

    given = command.parameters
    if "space" not in given:
        return 0
    overrides = parse_overrides(given["overrides"] or [])
    _, space = read_space(given["space"], overrides=overrides, num_trials=given.get("trials"))
    return DiskNeed.of(space).most(given["max_concurrent"] or 1) if command.name == "search" else 0
