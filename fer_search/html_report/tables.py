"""Tables of a page."""

from dataclasses import dataclass, field
from typing import Any

from rich.table import Table as TerminalTable
from rich.text import Text

from fer_search.report import short_value
from fer_search.tuning.space import Space


@dataclass(frozen=True)
class Table:
    """Rows under headings; a cell is text, and `strong` ones, by row and column, stand out."""

    headings: list[str]
    rows: list[list[str]]
    strong: set[tuple[int, int]] = field(default_factory=set)
    caption: str = ""


def from_terminal(table: TerminalTable) -> Table:
    """Return a terminal's table for the page, without its colours."""
    cells = [[Text.from_markup(str(cell)).plain for cell in column.cells] for column in table.columns]
    headings = [str(column.header) if table.show_header else "" for column in table.columns]
    caption = Text.from_markup(str(table.caption or "")).plain
    return Table(headings, [list(row) for row in zip(*cells, strict=True)], caption=caption)


def trials_table(rows: list[dict[str, Any]], space: Space, *, limit: int) -> Table:
    """Return the first rows of a leaderboard, strong where a parameter is not the space's own setting."""
    first = next((row for row in rows if row["trial"] == 0), None)
    shown, searched = rows[:limit], list(space.searched)
    strong = {
        (row, column + 5)
        for row, each in enumerate(shown)
        for column, name in enumerate(searched)
        if first is not None and each["parameters"][name] != first["parameters"][name]
    }
    cells = [
        [
            f"{row['trial']}{'*' if row['trial'] == 0 else ''}",
            row["state"],
            str(row["epochs"]),
            "" if row[space.metric] is None else f"{row[space.metric]:.4f}",
            "" if row["low"] is None else f"{row['low']:.3f} to {row['high']:.3f}",
            *(short_value(row["parameters"][name]) for name in searched),
        ]
        for row in shown
    ]
    headings = ["trial", "state", space.resource, space.metric, "95 % interval", *searched]
    caption = f"The best {len(shown)} of {len(rows)} trials. * the space's own settings; bold: other than those."
    return Table(headings, cells, strong, caption)
