"""The directories that searches and trainings live in: names, settings, JSON on disk.

<runs>/<name>/settings.json      what was asked for, enough to resume
<runs>/<name>/journal.jsonl      what happened, as it happened
<runs>/<name>/result.json        a training's figures, once it is done
<runs>/<name>/checkpoints/       states to go on from; of a finished search those of its best trials
<runs>/<name>/race/              the trainings of a search's best with fresh seeds
<runs>/<name>/retrain/           the training of its winner; with other seeds in seed_1/ and so on
<runs>/<name>/retrain_00012/     the same of trial 12
<runs>/mlflow.db                 the embedded tracking store
<runs>/optuna.db                 each search as an Optuna study
<runs>/private_test_ledger.jsonl every reading of PrivateTest
"""

import errno
import fcntl
import json
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from fer_search.atomic import replacing
from fer_search.errors import InvalidInput, nearest_name, problem
from fer_search.files import read_text

FORMAT = 3
SETTINGS = "settings.json"
RESULT = "result.json"
LOGITS = "logits.npz"
FIGURES = "figures"
LOCK = ".lock"
RUNS = Path("runs")  # where all searches and trainings live unless somebody says otherwise
RACE = "race"
REPORT = "report"
LEDGER = "private_test_ledger.jsonl"
MOST_NAMES = 10
"""Of the runs that are there, in a message that somebody asked for another one."""
NOT_WRITABLE = (errno.EROFS, errno.EACCES, errno.EPERM)


def run_directory(runs: Path, name: str) -> Path:
    """Return `<runs>/<name>`, absolute, there or not; raises InvalidInput for a bad name."""
    if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]{0,63}", name):
        rule = "must be up to 64 letters, digits, dots, dashes or underscores"
        raise InvalidInput(problem("command line", "name", rule, name))
    return (runs / name).resolve()


def existing_run(runs: Path, name: str) -> Path:
    """Return the directory of a search or a training in `runs`; raises InvalidInput where there is none, and says which
    there are.
    """
    directory = run_directory(runs, name)
    if not (directory / SETTINGS).exists():
        known = run_names(runs)
        hint = nearest_name(name, known) or (f" ({', '.join(known[:MOST_NAMES])})" if known else ", which has none")
        raise InvalidInput(problem(runs, "name", f"must be that of a search or a training there{hint}", name))
    return directory


def run_names(runs: Path) -> list[str]:
    """Return the names of the searches and trainings in `runs`; none where there is no such directory."""
    return sorted(path.parent.name for path in runs.glob(f"*/{SETTINGS}"))


def is_taken(directory: Path) -> bool:
    """Return whether there is anything in `directory` but the lock of a run that could not begin."""
    return directory.exists() and any(path.name != LOCK for path in directory.iterdir())


@contextmanager
def locked(directory: Path) -> Iterator[None]:
    """Hold a run for this process alone; raises InvalidInput while another one writes to it, or where none may."""
    try:
        directory.mkdir(parents=True, exist_ok=True)
        lock = (directory / LOCK).open("w")
    except OSError as error:
        if error.errno not in NOT_WRITABLE:
            raise
        raise InvalidInput(problem(directory, "run", "must be in a writable directory", error.strerror)) from error
    with lock as file:
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise InvalidInput(problem(directory, "run", "must not be running in another process", "a lock")) from None
        yield


def read_settings(directory: Path, *, kind: str) -> dict[str, Any]:
    """Read the settings of a search or a training; raises InvalidInput if `directory` holds no such thing."""
    settings = read_json(directory / SETTINGS)
    if settings.get("kind") != kind:
        raise InvalidInput(problem(directory, "kind", f"must be a {kind}", settings.get("kind")))
    return settings


def write_json(path: Path, value: Mapping[str, Any]) -> None:
    """Write `value` with the format's version, sorted, whole or not at all."""
    with replacing(path) as temporary:
        text = json.dumps({"format": FORMAT, **value}, indent=2, sort_keys=True, allow_nan=False)
        temporary.write_text(text + "\n", encoding="utf-8")


def read_json(path: Path) -> dict[str, Any]:
    """Read what `write_json` wrote; raises InvalidInput for a missing, damaged or newer file."""
    text = read_text(path)
    try:
        value = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise InvalidInput(problem(path, "file", "must be JSON", str(error))) from error
    if not isinstance(value, dict) or value.get("format") != FORMAT:
        found = value.get("format") if isinstance(value, dict) else type(value).__name__
        raise InvalidInput(problem(path, "format", f"must be {FORMAT}", found))
    return value
