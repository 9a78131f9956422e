"""How plots are drawn: matplotlib figures that become part of a page, in its light and its dark theme."""

import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from html import escape
from pathlib import Path
from typing import Any

import matplotlib as mpl
import numpy as np
from matplotlib.axes import Axes
from matplotlib.colors import ListedColormap
from matplotlib.figure import Figure
from matplotlib.layout_engine import ConstrainedLayoutEngine

INK = "#20262f"
"""The colour of text and axes, which a page replaces by its own."""
BLUE, ORANGE, GREY, GREEN = "#3b82c4", "#e07b28", "#8a919c", "#3a9d5d"  # seen on white and on black
COLOR_MAP = ListedColormap(mpl.colormaps["viridis"](np.linspace(0.25, 1, 256)))
"""Without its darkest part, which nobody sees on a dark page."""
MOST_VECTORS = 150
"""Above so many lines or points they are drawn as an image, which a page loads faster."""
STYLE: Any = {
    "svg.fonttype": "none",  # text stays text: it can be searched, and a page has its font
    "font.size": 10.0,
    "font.family": "sans-serif",
    "axes.spines.top": False,
    "axes.spines.right": False,
    **dict.fromkeys(("text.color", "axes.edgecolor", "axes.labelcolor", "xtick.color", "ytick.color"), INK),
}
PIXELS_PER_INCH = 110


@dataclass(frozen=True)
class Plot:
    """A figure with the words for those who do not see it (`alt`) and for those who wonder what it says (`caption`)."""

    name: str
    figure: Figure
    alt: str
    caption: str

    def draw(self) -> tuple[str, bytes]:
        """Draw it now, and not only once it is asked for; return its element and its image."""
        return self.svg, self.png

    @cached_property
    def svg(self) -> str:
        """The element of a page."""
        text = io.StringIO()
        with mpl.rc_context({**STYLE, "svg.hashsalt": self.name}):
            self.figure.savefig(text, format="svg", transparent=True, metadata={"Date": None}, dpi=PIXELS_PER_INCH)
        drawn = text.getvalue()
        drawn = drawn[drawn.index("<svg") :].replace(INK, "currentColor")
        drawn = re.sub(r"<metadata>.*?</metadata>", "", drawn, flags=re.DOTALL)
        drawn = re.sub(r'(id="|url\(#|href="#)', rf"\g<1>{self.name}-", drawn)  # each figure counts its own from 1
        return drawn.replace("<svg ", f'<svg role="img" aria-label="{escape(self.alt, quote=True)}" ', 1)

    @cached_property
    def png(self) -> bytes:
        """The image, on white."""
        image = io.BytesIO()
        with mpl.rc_context(STYLE):
            self.figure.savefig(image, format="png", dpi=PIXELS_PER_INCH, facecolor="white")
        return image.getvalue()

    def save(self, directory: Path) -> None:
        """Write the image to a directory."""
        (directory / f"{self.name}.png").write_bytes(self.png)


@contextmanager
def drawn(width: float = 8.0, height: float = 4.0, *, rows: int = 1, columns: int = 1) -> Iterator[tuple[Figure, Any]]:
    """Give a figure of so many inches and its axes (one, or an array of rows and columns) to draw on."""
    layout = ConstrainedLayoutEngine()
    with mpl.rc_context(STYLE):
        figure = Figure(figsize=(width, height), layout=layout)
        yield figure, figure.subplots(rows, columns, sharey=True, squeeze=rows * columns == 1)
        layout.execute(figure)
        figure.set_layout_engine(None)  # with one, each way of saving it draws everything twice, once to lay it out


def percent_axis(axes: Axes, metric: str) -> None:
    """Label the values of a metric, an accuracy in percent."""
    axes.set_ylabel(metric)
    if metric.startswith("val_accuracy"):
        axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0, decimals=None))
