"""A thread that hands a journal's events to a receiver as they come, at the receiver's own pace."""

import logging
import threading
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

from fer_search.journal import Event, read_events

POLL_SECONDS = 0.2
LONGEST_WAIT_SECONDS = 30.0
DRAIN_SECONDS = 30.0

logger = logging.getLogger(__name__)


class Follower:
    """Within its `with` block, calls `receive` with every event of the journal behind the byte `offset`, in order.

    An exception of `receive` is logged once and the event is tried again after a growing pause, so that a server that
    is away costs nothing but time. At the end of the block what is left is handed over; what still fails is announced.
    """

    def __init__(self, path: Path, receive: Callable[[Event], None], *, name: str, offset: int = 0) -> None:
        self.path, self.receive, self.name = path, receive, name
        self._offset = offset
        self._ending = threading.Event()
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ending.set()
        self._thread.join(DRAIN_SECONDS)
        self._abandoned.set()
        if unsent := sum(1 for _ in read_events(self.path, offset=self._offset)):
            logger.warning("%s: %d events were not taken and remain in %s", self.name, unsent, self.path)

    def _run(self) -> None:
        wait = POLL_SECONDS
        while True:
            last_round = self._ending.is_set()
            try:
                for event, offset in read_events(self.path, offset=self._offset):
                    if self._abandoned.is_set():
                        return
                    self.receive(event)
                    self._offset = offset
                wait = POLL_SECONDS
            except Exception as error:  # whatever a receiver raises, it must neither end this thread nor the search
                if wait == POLL_SECONDS:
                    logger.warning("%s: %s; trying again", self.name, error)
                wait = min(2 * wait, LONGEST_WAIT_SECONDS)
            if last_round:
                return
            self._ending.wait(wait)
