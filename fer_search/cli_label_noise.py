"""The commands about labels that are not to be believed: how many are wrong, and what to learn from instead."""

from pathlib import Path
from typing import Annotated

import typer

from fer_search.cli_options import (
    DataOption,
    JsonOption,
    Overrides,
    QuietOption,
    RecipeOption,
    RunsOption,
    TrackingOption,
    read_recipe,
)
from fer_search.printing import print_json
from fer_search.terminal import err, going_on, out, progress


def label_noise(
    name: Annotated[str, typer.Option("--name", help="Name of the run; the same command goes on after a kill.")],
    overrides: Overrides = None,
    recipe_file: RecipeOption = None,
    data: DataOption = "synthetic",
    folds: Annotated[int, typer.Option(min=2, help="Parts of the images to train on; as many trainings.")] = 5,
    tracking_uri: TrackingOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Find out which labels are probably wrong, by networks that have not learned from them.

    One network is trained without each fold of the images to train on, and says what it takes the fold's images for.
    Left are a page, `suspects.csv`, and `soft_labels.parquet` for `train --soft-labels`.

    Example: `fer-search label-noise --name noise --data fer2013.csv epochs=10`
    """
    from fer_search.cross_fitting import PAGE, SOFT_LABELS, SUSPECTS
    from fer_search.cross_fitting import label_noise as run
    from fer_search.report_label_noise import CAVEAT, noise_table

    chosen = read_recipe(recipe_file, overrides)
    with going_on("the same command"):
        found = run(
            chosen, name=name, data=data, folds=folds, tracking_uri=tracking_uri, runs=runs,
            follow=progress(quiet=quiet),
        )  # fmt: skip
    summary, directory = found.summary(), runs / name
    files = {"page": PAGE, "suspects": SUSPECTS, "soft_labels": SOFT_LABELS}
    if as_json:
        print_json({**summary, **{key: str(directory / file) for key, file in files.items()}})
        return
    out.print(noise_table(summary, title=f"{name}: wrong labels, as confident learning estimates them"))
    out.print(
        f"{summary['accuracy']:.1%} of the labels agree with a network that has not learned from the image; "
        f"{summary['num_suspects']:,} are suspicious. {CAVEAT}",
        soft_wrap=True,
    )
    for file in files.values():
        out.print(str(directory / file), markup=False, soft_wrap=True)


def distill(
    bundle: Annotated[Path, typer.Argument(help="The directory that export wrote: the teacher.")],
    output: Annotated[Path, typer.Option("--output", help="The file of soft labels to write.")],
    data: Annotated[str | None, typer.Option("--data", help="Where what it was trained on lies now.")] = None,
) -> None:
    """Write what a bundle says of the images to train on, for `train --soft-labels` to teach another network.

    Example: `fer-search distill runs/first/bundle --output soft_labels.parquet`
    """
    from fer_search.distillation import distill as run

    with err.status("predicting"):
        labels = run(bundle, output=output, data=data)
    out.print(f"wrote {len(labels.images):,} soft labels to {output}", markup=False, soft_wrap=True)
