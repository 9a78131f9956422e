"""Where the command line writes, results to stdout and progress to stderr, and what it shows while a run goes on."""

import errno
import logging
import os
import signal
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import typer
from rich.console import Console
from rich.live import Live

from fer_search.jobs import COLUMNS
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Event, read_journal
from fer_search.report import event_line
from fer_search.runs import SETTINGS

if TYPE_CHECKING:
    from fer_search.tuning.limit import Budget

WIDTH_OF_A_FILE = 160
WATCH_SECONDS = 2.0
STORAGE_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO, errno.ESTALE)
out = Console(highlight=False, width=None if sys.stdout.isatty() else int(os.environ.get(COLUMNS, WIDTH_OF_A_FILE)))
# Where FORCE_COLOR asks for colours in a file, a screen that draws itself again is not meant.
err = Console(stderr=True, highlight=False, force_interactive=None if sys.stderr.isatty() else False)


@contextmanager
def shown(run: Path, budget: "Budget", *, quiet: bool) -> Iterator[Callable[[Event], None] | None]:
    """Show the search in a directory while the block runs it: a screen in a terminal, a line per event elsewhere.

    Yields who is to be told of the journal's events, if anyone.
    """
    if quiet or not err.is_interactive:
        yield progress(quiet=quiet, begun=run)
        return
    from fer_search.live import SearchScreen

    _silence_libraries()
    with Live(SearchScreen(run, budget=budget), console=err, refresh_per_second=1), _logs_above_the_screen():
        yield None


def watch(run: Path) -> None:
    """Show the screen of a search that another process runs, until that ends."""
    from fer_search.live import SearchScreen
    from fer_search.status import is_locked

    screen = SearchScreen(run, since=(run / SETTINGS).stat().st_mtime)
    with suppress(KeyboardInterrupt), Live(screen, console=out, refresh_per_second=1):
        while is_locked(run):
            time.sleep(WATCH_SECONDS)


@contextmanager
def _logs_above_the_screen() -> Iterator[None]:
    """Let log messages, which go to stderr as it was, go where a screen shows what is printed, too."""
    handlers = [each for each in logging.getLogger().handlers if isinstance(each, logging.StreamHandler)]
    before = [handler.setStream(sys.stderr) for handler in handlers]
    try:
        yield
    finally:
        for handler, stream in zip(handlers, before, strict=True):
            if stream is not None:
                handler.setStream(stream)


def _silence_libraries() -> None:
    import optuna

    optuna.logging.set_verbosity(optuna.logging.WARNING)
    logging.getLogger("mlflow").setLevel(logging.WARNING)


def progress(*, quiet: bool, begun: Path | None = None) -> Callable[[Event], None] | None:
    """Return a receiver of journal events that prints a line each; it takes over from the libraries' own chatter.

    Of trials that the run `begun` has already it knows the length by its journal. None if all is to be quiet: then
    warnings are all that is logged, too.
    """
    _silence_libraries()
    if quiet:
        logging.getLogger("fer_search").setLevel(logging.WARNING)
        return None
    there = [] if begun is None else read_journal(begun / JOURNAL)
    num_epochs = {trial.number: trial.parameters["epochs"] for trial in there}

    def receive(event: Event) -> None:
        if event["event"] == "trial_started":
            num_epochs[event["trial"]] = event["parameters"]["epochs"]
        err.print(event_line(event, num_epochs=num_epochs.get(event["trial"])), markup=False, soft_wrap=True)

    return receive


@contextmanager
def going_on(command: str, *, run: Path | None = None) -> Iterator[None]:
    """Let what stops the block from outside, a signal or storage that fails, end the program without a traceback.

    Every epoch that was finished is on disk then, and `command` goes on from there. Nothing is to go on
    from where the `run` in that directory has not begun.
    """
    before = signal.signal(signal.SIGTERM, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt:
        _say_how_to_go_on(command, run)
        raise typer.Exit(130) from None
    except OSError as error:
        if error.errno not in STORAGE_ERRORS:
            raise
        problem = f"{error.filename or 'storage'}: file: must be writable, got {error.strerror!r}"
        err.print(f"error: {problem}", markup=False, soft_wrap=True)
        _say_how_to_go_on(command, run)
        raise typer.Exit(1) from None
    finally:
        signal.signal(signal.SIGTERM, before)


def _say_how_to_go_on(command: str, run: Path | None) -> None:
    begun = run is None or (run / SETTINGS).exists()
    what = f"every epoch that was finished is on disk; to go on: {command}" if begun else "it had not begun"
    err.print(f"stopped; {what}", markup=False, soft_wrap=True)
