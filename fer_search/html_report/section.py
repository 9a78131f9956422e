"""A part of a page: text, tables and plots."""

from dataclasses import dataclass, field

from fer_search.html_report.drawing import Plot
from fer_search.html_report.tables import Table


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
