"""When a search's time is up."""

import math
import time


class Deadline:
    """A moment `seconds` from now, by a clock that nobody sets; None: never."""

    def __init__(self, seconds: float | None = None) -> None:
        self._moment = math.inf if seconds is None else time.monotonic() + seconds

    @property
    def passed(self) -> bool:
        """Whether the moment is over."""
        return time.monotonic() >= self._moment
