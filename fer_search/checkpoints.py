"""The states of a training on disk, verified: written by whoever runs it and read by the next one, on whatever node."""

import hashlib
import json
import logging
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

from fer_search.atomic import replacing

logger = logging.getLogger(__name__)

CHECKPOINTS = "checkpoints"
"""What the directory of a run is called that they are in."""
NUM_KEPT = 2
REPORT = "report.json"


class Saves(Protocol):
    """Something that can store its state in a directory."""

    @property
    def save(self) -> Callable[[Path], object]:
        """What stores the state in a directory that exists."""
        ...


@dataclass(frozen=True)
class Checkpoint:
    """A verified state: what the epoch reported, and the directory that its report was saved to."""

    epoch: int
    metrics: dict[str, float]
    directory: Path


class Checkpoints:
    """The newest checkpoints of one training in `directory`, each of them whole or absent."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory

    def save(self, epoch: int, metrics: dict[str, float], state: Saves) -> None:
        """Store the state after `epoch` with what it reported; older ones than the one before are removed."""
        path = self.directory / f"epoch_{epoch:05d}"
        with replacing(path) as temporary:
            temporary.mkdir()
            state.save(temporary)
            report = {"epoch": epoch, "metrics": metrics, "files": _digests(temporary)}
            (temporary / REPORT).write_text(json.dumps({"report": report, "digest": _report_digest(report)}))
            shutil.rmtree(path, ignore_errors=True)  # damaged, or this epoch would not have been trained again
        self.keep(NUM_KEPT)

    def newest(self) -> Checkpoint | None:
        """Return the newest undamaged checkpoint, or None if there is none."""
        for path in reversed(self._paths()):
            try:
                stored = json.loads((path / REPORT).read_text(encoding="utf-8"))
                report = stored["report"]
                if stored["digest"] == _report_digest(report) and report["files"] == _digests(path):
                    return Checkpoint(report["epoch"], report["metrics"], path)
            except (OSError, ValueError, KeyError, TypeError, RecursionError):
                pass
            logger.warning("%s is damaged: the training goes on from the checkpoint before it, if any", path)
        return None

    def keep(self, count: int) -> None:
        """Remove all but the newest `count` checkpoints, and what a killed process had begun to write."""
        for path in (*self._paths()[: -count or None], *self.directory.glob(".epoch_*")):
            shutil.rmtree(path, ignore_errors=True)

    def remove(self) -> None:
        """Remove all of it, after the training's end."""
        shutil.rmtree(self.directory, ignore_errors=True)

    def _paths(self) -> list[Path]:
        return sorted(self.directory.glob("epoch_*"))


def _digests(directory: Path) -> dict[str, str]:
    files = sorted(path for path in directory.rglob("*") if path.is_file() and path.name != REPORT)
    return {str(path.relative_to(directory)): _digest(path) for path in files}


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _report_digest(report: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(report, sort_keys=True).encode()).hexdigest()
