"""The command line: thin over `workflow`. Logging and terminal output are set up here and nowhere else.

Results go to stdout, progress and logs to stderr; a user's mistake is one clear message and exit code 2.
"""

import logging
import os
import sys
from importlib.metadata import version
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from fer_search.cli_calibrate import calibrate
from fer_search.cli_cluster import doctor, list_jobs, logs, stop, submit
from fer_search.cli_inspect import data_app, importance, model_app, report, status, sync
from fer_search.cli_label_noise import distill, label_noise
from fer_search.cli_options import (
    DataOption,
    JsonOption,
    Overrides,
    QuietOption,
    RecipeOption,
    RunArgument,
    RunsOption,
    SoftLabelsOption,
    TrackingOption,
    TrialOption,
    read_recipe,
)
from fer_search.cli_predict import predict
from fer_search.cli_search import compare, race, resume, retrain, search
from fer_search.cli_simulate import simulate
from fer_search.configuration import option_defaults, read_configuration
from fer_search.errors import InvalidInput, NotBetter, problem
from fer_search.printing import print_evaluation, print_links, print_next, print_selection, print_training
from fer_search.terminal import err, going_on, out, progress

if TYPE_CHECKING:
    from fer_search.combination import Kind

EPILOG = (
    "It ends with 0 when all is done; with 2 after a user's mistake; with 1 if a training diverged, no trial or "
    "entrant came to the end, no soup or ensemble was better, storage failed or a job did; with 130 if it was "
    "interrupted (Ctrl-C, SIGTERM) or has spent its budget.\n\n"
    "Defaults of `--runs`, `--data`, `--tracking-uri` and `--address` may stand in `fer_search.toml`, or under "
    "`[tool.fer_search]` in `pyproject.toml`, here or in a directory above. `--install-completion` lets TAB complete "
    "commands, options and the names of runs."
)

app = typer.Typer(
    no_args_is_help=True,
    add_completion=True,
    rich_markup_mode="markdown",
    pretty_exceptions_enable=False,
    help="Hyperparameter search for facial emotion recognition: **search** a space, **compare** its trials, "
    "**retrain** the winner, **export** it, **predict** with it.\n\n"
    "Try `fer-search search search_spaces/smoke.toml --name first`: it needs no data set.",
    epilog=EPILOG,
)


def print_version(asked: bool) -> None:
    """Print the version, and end."""
    if asked:
        out.print(version("fer_search"), markup=False)
        raise typer.Exit


@app.callback()
def before_any_command(
    show_version: Annotated[
        bool, typer.Option("--version", callback=print_version, is_eager=True, help="Print the version and end.")
    ] = False,
) -> None:
    """Take what is given before a command's name."""


def recipe(
    overrides: Overrides = None,
    design: Annotated[bool, typer.Option("--design", help="Begin with the reference design's settings.")] = False,
) -> None:
    """Print a recipe as TOML with a comment per field: the default one or the design's, or with your changes.

    Example: `fer-search recipe epochs=30 sam_rho=0.1 > mine.toml`
    """
    from fer_search.recipe import Recipe, commented_toml, parse_overrides

    base = Recipe.design() if design else Recipe()
    chosen = base.replace(parse_overrides(overrides or []), source="command line")
    out.print(commented_toml(chosen), markup=False, soft_wrap=True)


def train(
    name: Annotated[str, typer.Option("--name", help="Name of the training; the same command goes on after a kill.")],
    overrides: Overrides = None,
    recipe_file: RecipeOption = None,
    data: DataOption = "synthetic",
    soft_labels: SoftLabelsOption = None,
    tracking_uri: TrackingOption = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
    quiet: QuietOption = False,
) -> None:
    """Train one recipe to the end and print its figures.

    Example: `fer-search train --name baseline --data fer2013.csv epochs=30`
    """
    from fer_search.trainings import train as run

    chosen = read_recipe(recipe_file, overrides)
    with going_on("the same command"):
        result = run(
            chosen, name=name, data=data, soft_labels=soft_labels, tracking_uri=tracking_uri, runs=runs,
            follow=progress(quiet=quiet),
        )  # fmt: skip
    print_training(result, as_json=as_json)


def evaluate(
    bundle: Annotated[Path, typer.Argument(help="The directory that export wrote.")],
    data: Annotated[str | None, typer.Option("--data", help="Default: what the bundle was trained on.")] = None,
    split: Annotated[
        str, typer.Option(help="validation, public, public_unique or private; a look at private is put on record.")
    ] = "public",
    against: Annotated[
        Path | None, typer.Option(help="Another bundle to compare it with, by a paired test on the same images.")
    ] = None,
    again: Annotated[
        str | None,
        typer.Option(metavar="REASON", help="Why private images that were read before are read again; kept on record."),
    ] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Measure a bundle on a split of a data set, alone or against another bundle.

    Private images are for one look: a second one is refused unless `--again` says why.

    Examples:

    - `fer-search evaluate runs/first/bundle --data fer2013.csv --split public`
    - `fer-search evaluate runs/second/bundle --against runs/first/bundle`
    """
    from fer_search.assessment import evaluate as measure

    result = measure(bundle, data=data, split=split, against=against, again=again, runs=runs)
    print_evaluation(result, as_json=as_json)


def export(
    name: RunArgument,
    trial: TrialOption = None,
    soup: Annotated[
        bool, typer.Option("--soup", help="Instead: the mean of the weights of several finished trainings.")
    ] = False,
    ensemble: Annotated[
        bool, typer.Option("--ensemble", help="Instead: several finished trainings, asked together.")
    ] = False,
    others: Annotated[
        list[str] | None,
        typer.Option("--with", metavar="NAME", help="Another search or training to choose from; may be repeated."),
    ] = None,
    output: Annotated[
        Path | None,
        typer.Option(
            "--output",
            help="The bundle's directory; default: bundle in runs/NAME, or bundle_N of a trial, bundle_soup, "
            "bundle_ensemble.",
        ),
    ] = None,
    runs: RunsOption = Path("runs"),
) -> None:
    """Write the bundle of a retrained winner (or of a training) and register it.

    It holds the recipe, the weights, ONNX, a manifest with every figure, and a model card.

    Of several seeds it is the one that did best on search-validation. `--soup` and `--ensemble` combine long trainings
    of the search, chosen on search-validation too; where the best alone is not beaten, nothing is exported.

    Examples: `fer-search export first` or `fer-search export first --ensemble --with second`
    """
    from fer_search import workflow
    from fer_search.predict import read_manifest

    if soup and ensemble:
        raise InvalidInput(problem("command line", "ensemble", "must not be given with --soup", True))
    combine: Kind | None = "soup" if soup else "ensemble" if ensemble else None
    try:
        with err.status("exporting"):
            bundle, registered = workflow.export(
                name, trial=trial, combine=combine, others=others or [], bundle=output, runs=runs
            )
    except NotBetter as answer:
        err.print(str(answer), markup=False, soft_wrap=True)
        raise typer.Exit(1) from None
    out.print(f"bundle: {bundle}", markup=False, soft_wrap=True)
    print_selection(read_manifest(bundle), bundle)
    if registered:
        out.print(f"registered in MLflow as {registered}")
    print_links(runs / name)
    print_next(f"fer-search predict {bundle} PICTURES")


def ui(
    runs: RunsOption = Path("runs"),
    port: Annotated[int, typer.Option(min=1, max=65535)] = 5000,
) -> None:
    """Serve the MLflow UI on the local tracking store, for a browser on this machine only.

    Example: `fer-search ui --port 5001`
    """
    from fer_search.network import why_unreachable
    from fer_search.tracking_uri import local_store

    if not (runs / "mlflow.db").exists():
        raise InvalidInput(problem(runs, "mlflow.db", "must be there: search or train first", "nothing"))
    if why_unreachable("127.0.0.1", port) is None:  # MLflow would hang
        raise InvalidInput(problem("command line", "port", "must be free: something is served there already", port))
    err.print(f"MLflow UI on http://127.0.0.1:{port} (Ctrl-C ends it)")
    command = [
        sys.executable,
        "-m",
        "mlflow",
        "ui",
        "--backend-store-uri",
        local_store(runs),
        "--host",
        "127.0.0.1",
        "--port",
        str(port),
        "--workers",
        "1",  # for one person, in seconds rather than most of a minute
    ]
    environment = {**os.environ, "MLFLOW_SERVER_ENABLE_JOB_EXECUTION": "false"}
    os.execve(command[0], command, environment)  # which is then this program, and ends as it does


for panel, commands in {
    "Before a search": (recipe, train, label_noise),
    "Search, and what follows": (search, resume, race, retrain, export),
    "Look at it": (status, compare, importance, report, ui, sync),
    "Use the winner": (predict, evaluate, distill),
    "Which way of searching": (calibrate, simulate),
}.items():
    for command in commands:
        app.command(rich_help_panel=panel)(command)

app.add_typer(data_app, name="data", rich_help_panel="Before a search")
app.add_typer(model_app, name="model", rich_help_panel="Before a search")

arguments_of_a_command = {"allow_interspersed_args": False, "allow_extra_args": True}
app.command(context_settings=arguments_of_a_command, rich_help_panel="On a cluster")(submit)
for of_a_job in (doctor, logs, stop):
    app.command(rich_help_panel="On a cluster")(of_a_job)
app.command("list", rich_help_panel="On a cluster")(list_jobs)


def main() -> None:
    """Run the command line; exit codes are those of its help."""
    logging.basicConfig(level=logging.WARNING, format="%(levelname)s %(name)s: %(message)s", stream=sys.stderr)
    logging.getLogger("fer_search").setLevel(logging.INFO)
    if os.environ.get("RAY_AUTH_TOKEN") or os.environ.get("RAY_AUTH_TOKEN_PATH"):
        os.environ.setdefault("RAY_AUTH_MODE", "token")  # Ray reads it when it is imported
    # Threads that spin for long while they wait bring a training to a crawl as soon as other work wants their cores;
    # threads that do not spin at all are woken too late for the small tensors of a step: see docs/performance.md.
    os.environ.setdefault("GOMP_SPINCOUNT", "10000")
    try:
        command = typer.main.get_command(app)
        command(default_map=option_defaults(command, read_configuration(Path.cwd())))
    except InvalidInput as error:
        for line in error.problems:
            err.print(f"error: {line}", markup=False, soft_wrap=True)
        sys.exit(2)
    except OSError as error:
        if error.filename is None:
            raise  # not about a file that the user named
        err.print(
            f"error: {error.filename}: file: must be usable, got {error.strerror!r}", markup=False, soft_wrap=True
        )
        sys.exit(2)
    except FloatingPointError as error:
        err.print(f"error: the training diverged: {error}", markup=False, soft_wrap=True)
        sys.exit(1)
