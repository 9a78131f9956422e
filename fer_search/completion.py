"""What a shell offers when a word is completed: looks into directories alone, for it is asked at every TAB."""

from pathlib import Path

import typer

from fer_search.runs import SETTINGS


def run_names(context: typer.Context, incomplete: str) -> list[str]:
    """Return the searches and trainings in the directory of runs whose name begins so; none where there is none."""
    runs = Path(context.params.get("runs") or "runs")
    found = (path.parent.name for path in runs.glob(f"*/{SETTINGS}"))
    return sorted(name for name in found if name.startswith(incomplete))
