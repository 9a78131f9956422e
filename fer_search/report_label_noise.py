"""Label noise in a terminal."""

from collections.abc import Mapping
from typing import Any

import numpy as np
from rich.table import Table

CAVEAT = (
    "What the network cannot tell apart counts as noise too: look at the faces before you believe the number, and "
    "change no label of images that anything is judged on."
)


def noise_table(summary: Mapping[str, Any], *, title: str = "") -> Table:
    """Return the estimated share of wrong labels of each class and what they most often should be."""
    table = Table(title=title or None)
    for heading in ("label", "images", "wrong", "mostly"):
        table.add_column(heading, justify="left" if heading in ("label", "mostly") else "right")
    classes, joint = summary["classes"], np.array(summary["joint"])
    for row, name in enumerate(classes):
        others = np.where(np.arange(len(classes)) == row, 0.0, joint[row])
        count, wrong = summary["images_of_class"][name], summary["wrong_share_of_class"][name]
        mostly = f"{classes[others.argmax()]} ({others.max() / count:.1%})" if others.any() else ""
        table.add_row(name, f"{count:,}", f"{wrong:.1%}", mostly)
    table.add_row("[bold]all[/]", f"{summary['num_images']:,}", f"[bold]{summary['wrong_share']:.1%}[/]", "")
    return table
