"""The process that sends a run's journal to MLflow, as the process that runs it sees it."""

import logging
import subprocess
import sys
import threading
from pathlib import Path

logger = logging.getLogger(__name__)

RESTART_SECONDS = 5.0
LONGEST_RESTART_SECONDS = 300.0
END_SECONDS = 60.0
"""How long the end of a run waits at the most for what is left to be sent; a server that is away costs much less."""


class TrackingProcess:
    """Sends the journal of the run in `directory` until `end`; if it dies, another one is started after a pause."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._lock = threading.Lock()
        self._ending = threading.Event()
        self._process = self._start()
        threading.Thread(target=self._keep_alive, name="tracking", daemon=True).start()

    def end(self, status: str) -> None:
        """Say how the run ended, in MLflow's words, and wait until what is left is sent or cannot be."""
        with self._lock:
            self._ending.set()
            if self._process.poll() is not None:
                self._process = self._start()
        try:
            self._process.communicate(f"{status}\n", timeout=END_SECONDS)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.communicate()

    def _start(self) -> "subprocess.Popen[str]":
        command = [sys.executable, "-m", "fer_search.tracking_writer", str(self.directory)]
        # In a group of its own, since Ctrl-C in a terminal is sent to the whole group that runs there; not in another
        # session, since Linux may share the processors out among sessions, whatever the niceness of their processes.
        return subprocess.Popen(command, stdin=subprocess.PIPE, text=True, process_group=0)

    def _keep_alive(self) -> None:
        pause = RESTART_SECONDS
        while True:
            code = self._process.wait()
            if self._ending.is_set():
                return
            logger.warning("MLflow: the process that writes to it ended with code %d; another one is started", code)
            self._ending.wait(pause)
            pause = min(2 * pause, LONGEST_RESTART_SECONDS)
            with self._lock:
                if self._ending.is_set():
                    return
                self._process = self._start()
