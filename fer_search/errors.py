"""The one exception for what a user can mend: bad files, bad settings, a cluster that cannot run the request; and one
for an answer that is no.

It loads nothing, so that every package may raise it; the command line prints it without a traceback and exits with 2.
"""

import difflib
from collections.abc import Iterable, Sequence


class InvalidInput(ValueError):
    """One or more problems in what the user gave, all of one source reported at once.

    Each problem reads `<source>: <key>: <what must hold>, got <value>`.
    """

    def __init__(self, problems: str | Sequence[str]) -> None:
        self.problems: tuple[str, ...] = (problems,) if isinstance(problems, str) else tuple(problems)
        super().__init__("\n".join(self.problems))

    def __reduce__(self) -> tuple[type["InvalidInput"], tuple[tuple[str, ...]]]:
        return type(self), (self.problems,)


class NotBetter(Exception):
    """What was asked for was tried, and is no better than what is there already."""


def problem(source: object, key: object, rule: str, value: object) -> str:
    """Format one problem of a source."""
    return f"{source}: {finding(key, rule, value)}"


def finding(key: object, rule: str, value: object) -> str:
    """Format a problem whose source is not known yet; a long value is shortened, it may be a whole row of pixels."""
    shown = repr(value)
    if len(shown) > 80:
        shown = f"{shown[:77]}..."
    return f"{key}: {rule}, got {shown}"


def first_line(error: Exception) -> str:
    """Return what an error of another library says, in one line; its kind where it says nothing."""
    return next(iter(str(error).splitlines()), type(error).__name__)


def nearest_name(name: str, known: Iterable[str]) -> str:
    """Return ` (did you mean 'x'?)` for a misspelled name, or an empty string."""
    close = difflib.get_close_matches(name, list(known), n=1)
    return f" (did you mean {close[0]!r}?)" if close else ""
