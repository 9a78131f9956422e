"""What a page is made of: sections of text, tables and plots."""

from dataclasses import dataclass, field

from rich.table import Table as TerminalTable
from rich.text import Text

from fer_search.html_report.drawing import Plot


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


@dataclass(frozen=True)
class Section:
    """A part of the page; `text` says in a paragraph what is to be read from it, or why there is nothing."""

    title: str
    text: str = ""
    tables: list[Table] = field(default_factory=list)
    plots: list[Plot] = field(default_factory=list)

    @property
    def anchor(self) -> str:
        """What a link to it says."""
        return self.title.lower().replace(" ", "-")
