"""What a shell offers when a word is completed: looks into directories alone, for it is asked at every TAB."""

from pathlib import Path

import typer

from fer_search.runs import run_names


def offered_runs(context: typer.Context, incomplete: str) -> list[str]:
    """Return the searches and trainings in the directory of runs whose name begins so; none where there is none."""
    return [name for name in run_names(Path(context.params.get("runs") or "runs")) if name.startswith(incomplete)]
