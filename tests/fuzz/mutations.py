"""What the fuzzers share: broken copies of valid files, wild trees of values, and the one way to fail.

A reader may return or raise InvalidInput; whatever else it does is a bug. HYPOTHESIS_PROFILE=long, as `make fuzz` sets
it, runs ten thousand examples of each; the short form takes the same few every time.
"""

import os
from collections.abc import Callable
from datetime import date, time, timedelta
from pathlib import Path

from hypothesis import HealthCheck, settings
from hypothesis import strategies as st

from fer_search.errors import InvalidInput

LONGEST = timedelta(seconds=20)
settings.register_profile(
    "short", max_examples=60, derandomize=True, deadline=LONGEST, database=None, suppress_health_check=list(HealthCheck)
)
settings.register_profile("long", parent=settings.get_profile("short"), max_examples=10_000, derandomize=False)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "short"))

scalars = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.sampled_from([0, -1, 2**31, 2**63, 10**30, 10**400, 1e308, -0.0])
    | st.floats(allow_nan=True, allow_infinity=True)
    | st.text(max_size=20)
    | st.sampled_from(["", "..", "/etc/passwd", "../x", "a\0b", "nan", "épée", "\ud800", "[bold]x[/]"])
)
dates = st.dates(min_value=date(1900, 1, 1)) | st.times() | st.just(time(12))


def trees(keys: st.SearchStrategy[str], leaves: st.SearchStrategy[object] = scalars) -> st.SearchStrategy[object]:
    """Values of every shape, whose tables use the given keys among others."""
    names = keys | st.text(max_size=8)
    return st.recursive(
        leaves,
        lambda inner: st.lists(inner, max_size=4) | st.dictionaries(names, inner, max_size=5),
        max_leaves=12,
    )


@st.composite
def edited(draw: st.DrawFn, table: dict[str, object], leaves: st.SearchStrategy[object] = scalars) -> dict[str, object]:
    """A copy of a valid table with some of its values replaced, removed or added, at any depth."""
    result = dict(table)
    for _ in range(draw(st.integers(0, 3))):
        key = draw(st.sampled_from(sorted(table)))
        value = table[key]
        what = draw(st.sampled_from(["replace", "remove", "add", "descend"]))
        if what == "descend" and isinstance(value, dict) and value:
            result[key] = draw(edited(value, leaves))
        elif what == "remove":
            result.pop(key, None)
        elif what == "add":
            result[draw(st.text(min_size=1, max_size=8))] = draw(leaves)
        else:
            result[key] = draw(trees(st.sampled_from(sorted(table)), leaves))
    return result


@st.composite
def mutated(draw: st.DrawFn, content: bytes) -> bytes:
    """A copy of a file with bytes changed, inserted, removed, repeated or cut off."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 5))):
        at = draw(st.integers(0, max(len(data) - 1, 0)))
        length = draw(st.integers(1, 64))
        match draw(st.sampled_from(["change", "change", "insert", "remove", "repeat", "cut"])):
            case "change" if data:
                data[at] = draw(st.integers(0, 255))
            case "insert":
                data[at:at] = draw(st.binary(max_size=16) | st.sampled_from([b"\0" * 8, b"\xff" * 8, b"9" * 40]))
            case "remove":
                del data[at : at + length]
            case "repeat":
                data[at:at] = data[at : at + length]
            case "cut":
                del data[at:]
    return bytes(data)


def survives(read: Callable[[], object]) -> None:
    """Read, and let nothing pass but a result or a message with its file and rule."""
    try:
        read()
    except InvalidInput as error:
        for line in error.problems:
            assert ": " in line, line
            assert "got" in line, line


def written(path: Path, content: bytes) -> Path:
    """Put content into a file and return it."""
    path.write_bytes(content)
    return path
