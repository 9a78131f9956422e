"""What several commands of the command line take."""

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_search.completion import offered_runs

if TYPE_CHECKING:
    from fer_search.recipe import Recipe

SearchArgument = Annotated[str, typer.Argument(help="A search.", autocompletion=offered_runs)]
RunArgument = Annotated[str, typer.Argument(help="A search or a training.", autocompletion=offered_runs)]
DataOption = Annotated[
    str,
    typer.Option(
        "--data",
        envvar="FER_SEARCH_DATA",
        help="`synthetic`, or FER2013 as csv, parquet or folder: fer2013.csv, icml_face_data.csv, train/ and test/; or "
        "own data, a folder of images for each class.",
    ),
]
SoftLabelsOption = Annotated[
    Path | None,
    typer.Option(
        "--soft-labels",
        metavar="FILE",
        help="Class probabilities of the images to train on, by label-noise or distill; see soft_label_weight.",
    ),
]
CpusOption = Annotated[int, typer.Option("--cpus-per-trial", min=1, help="CPU cores, and torch threads, of a trial.")]
GpusOption = Annotated[
    float | None,
    typer.Option("--gpus-per-trial", min=0, help="GPUs of a trial, also a fraction; default: 1 where there is one."),
]
ConcurrentOption = Annotated[
    int, typer.Option("--max-concurrent", min=0, help="Most trials at once; 0: as many as fit.")
]
AddressOption = Annotated[
    str | None,
    typer.Option("--address", envvar="RAY_ADDRESS", help="A running Ray cluster; default: this machine."),
]
RunsOption = Annotated[
    Path,
    typer.Option(
        "--runs", envvar="FER_SEARCH_RUNS", help="Directory of all searches, trainings and the tracking store."
    ),
]
TrackingOption = Annotated[
    str | None,
    typer.Option(
        "--tracking-uri", envvar="MLFLOW_TRACKING_URI", help="MLflow server; default: SQLite in the runs directory."
    ),
]
HoursOption = Annotated[
    float | None,
    typer.Option(
        "--time-budget",
        min=0.0,
        metavar="HOURS",
        help="Start nothing new after so many hours, and let each trial wait after its epoch; resume goes on.",
    ),
]
EpochBudgetOption = Annotated[
    int | None,
    typer.Option("--epoch-budget", min=1, help="The same after so many epochs of all trials since the search began."),
]
GpuHoursOption = Annotated[
    float | None,
    typer.Option("--gpu-hours", min=0.0, help="The same after so many GPU hours of all trials since the search began."),
]
TrialOption = Annotated[
    int | None, typer.Option("--trial", min=0, help="Number of a trial of the search; default: the winner.")
]
Overrides = Annotated[
    list[str] | None, typer.Argument(metavar="[key=value]...", help="Recipe fields, such as epochs=9 max_lr=5e-3.")
]
RecipeOption = Annotated[Path | None, typer.Option("--recipe", help="A recipe file, such as a bundle's winner.toml.")]
JsonOption = Annotated[bool, typer.Option("--json", help="Print JSON for a script to read.")]
QuietOption = Annotated[
    bool, typer.Option("--quiet", "-q", help="Print results, warnings and errors alone: no progress.")
]


def read_recipe(recipe_file: Path | None, overrides: list[str] | None) -> "Recipe":
    """Return the recipe of a file, or the default one, with the overrides of the command line."""
    from fer_search.recipe import Recipe, parse_overrides

    base = Recipe.read(recipe_file) if recipe_file else Recipe()
    return base.replace(parse_overrides(overrides or []), source=recipe_file or "command line")
