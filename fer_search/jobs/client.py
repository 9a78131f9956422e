"""The jobs of a cluster, through Ray's Jobs API: submit one, follow it, list, stop. Knows nothing of what they do."""

import asyncio
import logging
import platform
import shlex
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Self
from urllib.parse import urlsplit

import aiohttp
import ray
import requests
from ray.exceptions import AuthenticationError
from ray.job_submission import JobDetails, JobStatus, JobSubmissionClient

from fer_search.errors import InvalidInput, first_line, problem
from fer_search.network import REACH_SECONDS, why_unreachable

OWN = "fer_search"
"""The key in a job's metadata by which our jobs are known; it holds the version that was submitted."""
TOKEN_HINT = "in RAY_AUTH_TOKEN, or in a file that RAY_AUTH_TOKEN_PATH names"
CHATTY = ("dashboard.modules.job.sdk", "dashboard.modules.dashboard_sdk", "_private.runtime_env.packaging")
RECONNECT_SECONDS = 2.0
PATIENCE_SECONDS = 300.0
"""How long a cluster that is followed may not answer."""
POLL_SECONDS = 0.5
NO_AGENT = "No available agent"
"""What Ray answers, as an error of the server, while the head's agent is not there; the job is not queued then."""
AGENT_SECONDS = 120.0
STOP_SECONDS = 600
"""How long a job may take to stop: a search stops when each of its trials has finished the epoch that it is in."""

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Job:
    """A job of ours: its id, the run that it works on, the command line and how it stands."""

    id: str
    run: str
    command: str
    status: str
    started: float | None
    ended: float | None
    exit_code: int | None
    message: str

    @classmethod
    def of(cls, details: JobDetails) -> Self:
        """Return what Ray says of a job in our terms; times are in seconds since the epoch."""
        metadata = details.metadata or {}
        return cls(
            id=details.submission_id,
            run=metadata.get("run", ""),
            command=metadata.get("command", details.entrypoint),
            status=str(details.status.value),
            started=None if details.start_time is None else details.start_time / 1000,
            ended=None if not details.end_time else details.end_time / 1000,
            exit_code=details.driver_exit_code,
            message=details.message or "",
        )

    @property
    def over(self) -> bool:
        """Whether the job has ended, in whatever way."""
        return bool(JobStatus(self.status).is_terminal())


class Cluster:
    """The Jobs API at `address`, such as http://127.0.0.1:8265.

    Raises InvalidInput where nobody answers, the token is refused, or Ray or Python there are not those here.
    """

    def __init__(self, address: str) -> None:
        self.address = address
        _check_reachable(address)
        for chatty in CHATTY:
            logging.getLogger(f"ray.{chatty}").setLevel(logging.WARNING)
        try:
            self._client = JobSubmissionClient(address)
            self._check_versions()
        except InvalidInput:
            raise
        except AuthenticationError as error:
            raise InvalidInput(
                problem(address, "token", f"must be the cluster's own ({TOKEN_HINT})", first_line(error))
            ) from None
        except (ConnectionError, RuntimeError, ValueError, requests.RequestException) as error:
            rule = "must be the address of Ray's Jobs API, that of the dashboard"
            raise InvalidInput(problem(address, "address", rule, first_line(error))) from error

    def submit(
        self,
        module: str,
        arguments: Sequence[str],
        *,
        working_dir: Path,
        job: str,
        run: str,
        environment: Mapping[str, str],
        resources: Mapping[str, float],
    ) -> None:
        """Queue `python -m MODULE ARGUMENTS...` in a copy of `working_dir`; `resources` are those of its process.

        The dashboard of a head that has just started answers before the agent that takes jobs is there: that is waited
        for. Raises InvalidInput where the cluster does not take the job.
        """
        deadline = time.monotonic() + AGENT_SECONDS
        while True:
            try:
                self._client.submit_job(
                    entrypoint=shlex.join(["python", "-m", module, *arguments]),
                    submission_id=job,
                    runtime_env={
                        "working_dir": str(working_dir),
                        "env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": str(STOP_SECONDS), **environment},
                    },
                    metadata={OWN: version("fer-search"), "run": run, "command": shlex.join(arguments)},
                    **resources,
                )
                return
            except RuntimeError as error:
                if NO_AGENT not in str(error) or time.monotonic() > deadline:
                    found = str(error).strip().rpartition("\n")[2]  # of a traceback what it says
                    raise InvalidInput(problem(self.address, "job", "must be taken by the cluster", found)) from error
            time.sleep(RECONNECT_SECONDS)

    def jobs(self) -> list[Job]:
        """Return our jobs, the newest first."""
        found = [Job.of(each) for each in self._client.list_jobs() if OWN in (each.metadata or {})]
        return sorted(found, key=lambda job: job.started or 0.0, reverse=True)

    def find(self, name: str) -> Job:
        """Return the job of this id, or the newest one of the run of this name; raises InvalidInput."""
        jobs = self.jobs()
        for job in jobs:
            if name in (job.id, job.run):
                return job
        raise InvalidInput(problem(self.address, "job", "must be a job, or a run, of fer-search list", name))

    def read(self, job: str) -> Job:
        """Return how a job stands."""
        return Job.of(self._client.get_job_info(job))

    def logs(self, job: str) -> str:
        """Return all that a job has printed so far."""
        return str(self._client.get_job_logs(job))

    def stop(self, job: str) -> Job:
        """Ask a job to stop, wait until it has, and return how it stands."""
        self._client.stop_job(job)
        deadline = time.monotonic() + STOP_SECONDS
        while not (found := self.read(job)).over and time.monotonic() < deadline:
            time.sleep(POLL_SECONDS)
        return found

    def delete(self, job: str) -> None:
        """Forget an ended job and its log."""
        self._client.delete_job(job)

    def follow(self, job: str, show: Callable[[str], None]) -> Job:
        """Pass on what a job prints, from its beginning to its end, and return how it ended.

        A connection that breaks, as when a laptop sleeps, is made again, and nothing is shown twice.
        """
        shown, failed_since = 0, None
        while True:
            try:
                shown = asyncio.run(self._show(job, show, shown))
                found = self.read(job)
                failed_since = None
                if found.over:
                    show(self.logs(job)[shown:])
                    return found
            except (
                aiohttp.ClientError,
                requests.RequestException,
                ConnectionError,
                RuntimeError,
                TimeoutError,
            ) as error:
                failed_since = failed_since or time.monotonic()
                if time.monotonic() - failed_since > PATIENCE_SECONDS:
                    raise InvalidInput(
                        problem(self.address, "address", "must still answer", first_line(error))
                    ) from error
                logger.info("no answer from %s: trying again", self.address)
            time.sleep(RECONNECT_SECONDS)

    async def _show(self, job: str, show: Callable[[str], None], shown: int) -> int:
        seen = 0
        async for chunk in self._client.tail_job_logs(job):
            seen += len(chunk)
            if seen > shown:
                show(chunk[max(len(chunk) - (seen - shown), 0) :])
                shown = seen
        return shown

    def _check_versions(self) -> None:
        response = self._client._do_request("GET", "/api/v0/cluster_metadata", timeout=REACH_SECONDS)
        response.raise_for_status()
        there = response.json()["data"]
        rule = "must be {!r}, as on this machine: install the same on both"
        problems = [
            problem(self.address, key, rule.format(here), found)
            for key, here, found in (
                ("Ray", ray.__version__, there["rayVersion"]),
                ("Python", _minor(platform.python_version()), _minor(there["pythonVersion"])),
            )
            if here != found
        ]
        if problems:
            raise InvalidInput(problems)


def _check_reachable(address: str) -> None:
    """Raise InvalidInput if nothing listens there; Ray itself would wait for a host that drops packets."""
    rule = "must be the address of Ray's Jobs API, such as http://127.0.0.1:8265 (a tunnel to the head's dashboard)"
    try:
        parts = urlsplit(address)
        port = parts.port or (443 if parts.scheme == "https" else 80)
    except ValueError as error:
        raise InvalidInput(problem("command line", "address", rule, address)) from error
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise InvalidInput(problem("command line", "address", rule, address))
    if found := why_unreachable(parts.hostname, port):
        raise InvalidInput(problem(address, "address", rule, found))


def _minor(version: str) -> str:
    return ".".join(version.split(".")[:2])
