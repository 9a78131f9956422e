"""Rejecting bad data: all problems of a source in one error, without flooding the screen."""

from collections.abc import Sequence

from fer_search.errors import InvalidInput

MAX_LISTED = 20


def reject(problems: Sequence[str]) -> None:
    """Raise `InvalidInput` with the first problems and the number of the others; do nothing when there are none."""
    if not problems:
        return
    listed = list(problems[:MAX_LISTED])
    if len(problems) > MAX_LISTED:
        listed.append(f"... and {len(problems) - MAX_LISTED} more")
    raise InvalidInput(listed)
