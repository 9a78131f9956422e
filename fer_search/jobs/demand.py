"""What a command asks of a cluster: what is checked there before the command is queued."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fer_search.jobs.command import Command

IS_THERE = {
    "search": False, "resume": True, "race": True, "retrain": True,
    "calibrate": None, "train": None, "label-noise": None,
}  # fmt: skip
"""The commands that train, and whether their run must be there; None: it may be.

The others only look at what is there, and say themselves what is wrong.
"""
IN_THE_JOB = ("train", "label-noise")
"""The commands that train in a job's own process; the others leave that to workers."""


@dataclass(frozen=True)
class Demand:
    """What a cluster must offer; None is not asked for.

    `runs` is the directory that all nodes share, `name` that of a run which must be there (`is_there`), must not be, or
    may be (None). What a run began with, its data, store and resources, is read from its settings where it is there.
    `gpus` per trial: None takes one where any node has one. `disk_bytes` must be free at least in `runs`.
    """

    runs: str | None = None
    name: str | None = None
    is_there: bool | None = None
    data: str | None = None
    tracking_uri: str | None = None
    cpus: int = 1
    gpus: float | None = None
    disk_bytes: int = 0

    @classmethod
    def of(cls, command: Command, *, disk_bytes: int = 0) -> "Demand":
        """Return what a command line asks for."""
        given: Mapping[str, Any] = command.parameters
        return cls(
            runs=str(given["runs"]),
            name=command.run,
            is_there=IS_THERE[command.name],
            data=given.get("data"),
            tracking_uri=given.get("tracking_uri"),
            cpus=given.get("cpus") or 1,
            gpus=given.get("gpus"),
            disk_bytes=disk_bytes,
        )
