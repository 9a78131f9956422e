"""A thread that hands a journal's events to a receiver as they come, at the receiver's own pace."""

import logging
import math
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from types import TracebackType
from typing import Self

from fer_search.journal import Event, read_events

MOST_AT_ONCE = 500
LONGEST_WAIT_SECONDS = 30.0
DRAIN_SECONDS = 30.0

Receive = Callable[[Sequence[Event]], None]
"""Takes events in order, one or many at once; after an exception it may be given the same ones again."""
Told = Callable[[int, str | None], None]
"""Hears how many bytes of the journal have been taken, and why the last attempt failed, if it did."""

logger = logging.getLogger(__name__)


def each(receive: Callable[[Event], None]) -> Receive:
    """Return a receiver that hands events over one by one."""

    def receive_all(events: Sequence[Event]) -> None:
        for event in events:
            receive(event)

    return receive_all


@contextmanager
def followed(journal: Path, follow: Callable[[Event], None] | None) -> Iterator[None]:
    """Pass the journal's events on to `follow` while the block runs."""
    if follow is None:
        yield
        return
    seen = max((end for _, end in read_events(journal)), default=0)  # a resumed run does not tell its story again
    with Follower(journal, each(follow), name="progress", offset=seen):
        yield


class Follower:
    """Within its `with` block, calls `receive` with the events of the journal behind the byte `offset`, in order.

    It looks for new ones `every` so many seconds, and up to ten times as seldom, so that it is at work no more than
    this `share` of the time. An exception of `receive` is logged once and the events are tried again after a growing
    pause, so that a server that is away costs nothing but time. At the end of the block what is left is handed over. A
    receiver that fails then is tried for DRAIN_SECONDS if it has taken anything before, as a server that is being
    restarted has, and not again if it never has. What it has not taken is `unsent`.
    """

    def __init__(
        self,
        path: Path,
        receive: Receive,
        *,
        name: str,
        every: float = 0.2,
        share: float = 1.0,
        offset: int = 0,
        told: Told | None = None,
    ) -> None:
        self.path, self.receive, self.name, self.every, self.share, self.told = path, receive, name, every, share, told
        self.unsent, self.has_taken = 0, False
        self._offset = offset
        self._ending, self._deadline = threading.Event(), math.inf
        self._abandoned = threading.Event()
        self._thread = threading.Thread(target=self._run, name=name, daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._deadline = time.monotonic() + DRAIN_SECONDS
        self._ending.set()
        self._thread.join(DRAIN_SECONDS)
        self._abandoned.set()
        self.unsent = sum(1 for _ in read_events(self.path, offset=self._offset))

    def _run(self) -> None:
        wait, failing = self.every, False
        while True:
            last_round = self._ending.is_set()
            start = time.monotonic()
            try:
                while self._hand_over() and last_round:
                    pass
                rest = (1 / self.share - 1) * (time.monotonic() - start)
                wait = min(max(self.every, rest), 10 * self.every)
            except Exception as error:  # whatever a receiver raises, it must neither end this thread nor the search
                message = reason_of(error)
                if not failing:
                    logger.warning("%s: %s; trying again", self.name, message)
                    self._tell(message)
                wait = min(2 * wait if failing else 2 * self.every, LONGEST_WAIT_SECONDS)
                failing = True
                if last_round and self.has_taken and time.monotonic() + self.every < self._deadline:
                    time.sleep(self.every)
                    continue
            else:
                failing = False
            if last_round:
                return
            self._ending.wait(wait)

    def _hand_over(self) -> bool:
        """Hand over what is new, at most MOST_AT_ONCE, and return whether there was anything."""
        events = list(islice(read_events(self.path, offset=self._offset), MOST_AT_ONCE))
        if not events or self._abandoned.is_set():
            return False
        self.receive([event for event, _ in events])
        self._offset, self.has_taken = events[-1][1], True
        self._tell(None)
        return True

    def _tell(self, error: str | None) -> None:
        if self.told is not None:
            self.told(self._offset, error)


def reason_of(error: BaseException) -> str:
    """Return what was wrong to begin with: clients wrap a refused connection three times."""
    while cause := error.__cause__ or error.__context__:
        error = cause
    return str(error) or type(error).__name__
