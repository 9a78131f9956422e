"""The commands that only look at something: a data set, a network, what the parameters of a search did."""

from dataclasses import asdict
from pathlib import Path
from typing import Annotated

import typer

from fer_search.cli_options import (
    JsonOption,
    Overrides,
    RecipeOption,
    RunArgument,
    RunsOption,
    SearchArgument,
    read_recipe,
)
from fer_search.errors import InvalidInput, problem
from fer_search.printing import print_json, print_status, print_table
from fer_search.report import audit_tables, maps_line, model_table
from fer_search.report_importance import importances_table
from fer_search.terminal import err, out, watch

data_app = typer.Typer(no_args_is_help=True, help="Look at a data set before you search on it.")
model_app = typer.Typer(no_args_is_help=True, help="Look at a network before you train it.")


@data_app.command("check")
def data_check(
    source: Annotated[str, typer.Argument(help="`synthetic`, a csv or parquet file, or a folder.")],
    near: Annotated[bool, typer.Option("--near", help="Look for near duplicates too, by perceptual hash.")] = False,
    as_json: JsonOption = False,
) -> None:
    """Count classes and splits, and find duplicates, label conflicts and blank images.

    Example: `fer-search data check fer2013.csv --near`
    """
    from fer_search.data.audit import audit
    from fer_search.data.fer2013 import load_faces

    with err.status("reading"):
        faces = load_faces(source)
    with err.status("looking for duplicates"):
        found = audit(faces, near_duplicates=near)
    if as_json:
        print_json({"source": source, **found.to_dict()})
        return
    for table in audit_tables(found, title=source):
        print_table(table)


@data_app.command("synth")
def data_synth(
    output: Annotated[Path, typer.Argument(help="The csv file to write, in FER2013's own form.")],
    num_faces: Annotated[int, typer.Option(min=50, help="How many faces.")] = 3000,
    seed: Annotated[int, typer.Option(min=0)] = 0,
    label_noise: Annotated[
        float, typer.Option(min=0, max=1, help="Share of Training faces that get another emotion's label.")
    ] = 0.0,
) -> None:
    """Write procedural faces of the seven emotions, to try things without a data set.

    Example: `fer-search data synth faces.csv --num-faces 5000 --seed 1`
    """
    from fer_search.data.fer2013_csv import write_csv
    from fer_search.data.synthetic import synthesize

    if output.exists():
        raise InvalidInput(problem(output, "output", "must not be there yet", "a file"))
    write_csv(synthesize(num_faces, seed=seed, label_noise=label_noise), output)
    out.print(f"wrote {num_faces} faces to {output}")


@model_app.command("summary")
def model_summary(
    overrides: Overrides = None,
    recipe_file: RecipeOption = None,
    data: Annotated[
        str | None, typer.Option("--data", help="The data whose images it is for; default: of FER2013's form.")
    ] = None,
    as_json: JsonOption = False,
) -> None:
    """Print the parts of a recipe's network with their parameters and FLOPs.

    Example: `fer-search model summary backbone=efficientnet_b0 self_attention_heads=4`
    """
    from fer_search.data.faces import FER2013
    from fer_search.data.fer2013 import load_faces
    from fer_search.training.model_summary import summarize

    form = FER2013 if data is None else load_faces(data).form
    summary = summarize(read_recipe(recipe_file, overrides), form)
    if as_json:
        print_json({**asdict(summary), "total": asdict(summary.total)})
        return
    print_table(model_table(summary))
    out.print(maps_line(summary))


def importance(name: SearchArgument, runs: RunsOption = Path("runs"), as_json: JsonOption = False) -> None:
    """Print which parameters a search's results hang on, judged by all of its trials, also while it runs.

    Stopped trials count by their rank among those that came as far. Takes about twenty trials to say anything.

    Example: `fer-search importance first`
    """
    from fer_search.search_result import read_search

    with err.status("growing forests"):
        result = read_search(name, runs=runs)
        found = result.importances()
    if as_json:
        print_json({"name": result.name, "metric": result.space.metric, **asdict(found)})
        return
    print_table(importances_table(found, title=f"{result.name}: what {result.space.metric} hangs on"))


def report(
    name: SearchArgument,
    output: Annotated[
        Path | None, typer.Option(help="A folder to write it to; default: the search's own, and MLflow gets it too.")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Write the report of a search, also while it runs: one page that needs no network, and its plots as images.

    Example: `fer-search report first`
    """
    from fer_search.html_report.report import report as write_report

    with err.status("writing the report"):
        page = write_report(name, output=output, runs=runs)
    out.print(str(page), markup=False, soft_wrap=True)


def status(
    name: RunArgument,
    address: Annotated[
        str | None, typer.Option("--address", help="The dashboard of the cluster that it runs on; see submit.")
    ] = None,
    screen: Annotated[bool, typer.Option("--watch", help="Show the screen of a search until it ends.")] = False,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Tell how a search or a training stands: also while it runs, from another terminal, and after a crash.

    What ran, what runs, what failed with which error, what MLflow lacks, and what going on would do.

    Examples:

    - `fer-search status first`
    - `fer-search status first --watch`
    """
    from fer_search.cli_cluster import status_on_cluster
    from fer_search.runs import existing_run, read_settings
    from fer_search.status import read_status

    if address is not None:
        if screen:
            raise InvalidInput(problem("command line", "watch", "must not be given with an address", address))
        status_on_cluster(name, address, runs, as_json=as_json)
        return

    directory = existing_run(runs, name)
    if screen:
        read_settings(directory, kind="search")
        watch(directory)
    print_status(read_status(directory), as_json=as_json)


def sync(
    name: RunArgument,
    tracking_uri: Annotated[
        str | None, typer.Option("--tracking-uri", help="Another MLflow store than the one that it was started with.")
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Send to MLflow what it lacks of a search or a training: all that happened while it did not answer.

    What it has already is not doubled, so it does no harm to send everything again, or to another store.

    Example: `fer-search sync first`
    """
    from fer_search.sync import sync as send

    with err.status("sending"):
        sent = send(name, tracking_uri=tracking_uri, runs=runs)
    for directory, count in sent.items():
        out.print(f"{directory}: all {count} events are in MLflow", markup=False, soft_wrap=True)
