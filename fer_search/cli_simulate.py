"""The command that replays searches on recorded learning curves."""

import os
from dataclasses import asdict
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from fer_search.cli_options import JsonOption, RunsOption
from fer_search.completion import offered_runs
from fer_search.errors import InvalidInput, problem
from fer_search.printing import print_json, print_table
from fer_search.report_simulation import differences_table, problem_lines, regrets_table
from fer_search.terminal import err, out

if TYPE_CHECKING:
    from fer_search.emulator import Emulator
    from fer_search.recorded_curves import RecordedCurves
    from fer_search.simulate import Outcome, Setting

SHIPPED = Path(__file__).parent / "curves" / "fer2013.parquet"
SHIPPED_NAME = "the shipped curves"
OWN = "the space's own"


def simulate(
    curves: Annotated[
        list[str] | None,
        typer.Argument(
            metavar="CURVES",
            help="Files of curves (.parquet) or names of searches; figures are means over them. Default: the shipped.",
            autocompletion=offered_runs,
        ),
    ] = None,
    searcher: Annotated[str | None, typer.Option(help="curves, tpe or random; default: the space's.")] = None,
    scheduler: Annotated[str | None, typer.Option(help="promotion, stopping or none; default: the space's.")] = None,
    eta: Annotated[int | None, typer.Option(help="At each rung, the best 1/eta go on; default: the space's.")] = None,
    first_rung: Annotated[
        int | None, typer.Option(help="First epoch at which trials are compared; default: the space's.")
    ] = None,
    baseline: Annotated[
        list[str] | None, typer.Option(help="SEARCHER/SCHEDULER to compare with, repeatable; default: all seven.")
    ] = None,
    budgets: Annotated[str, typer.Option(help="Budgets in full trainings, ascending.")] = "5,10,20,50",
    workers: Annotated[int, typer.Option(min=1, help="Trials at once.")] = 8,
    seeds: Annotated[int, typer.Option(min=6, help="Searches of each kind; below 6 no difference has p < 0.05.")] = 10,
    schedule: Annotated[str | None, typer.Option(help="Which of the file's schedules; default: its first.")] = None,
    jobs: Annotated[int | None, typer.Option(min=1, help="Processes; default: one per CPU core.")] = None,
    runs: RunsOption = Path("runs"),
    as_json: JsonOption = False,
) -> None:
    """Replay searches on recorded learning curves: what a setting is worth, in virtual time, beside the baselines.

    The search is the real one; what its trials report comes from an emulator of the curves, whose quality is printed.

    Examples:

    - `fer-search simulate`
    - `fer-search simulate first --first-rung 3`
    - `fer-search simulate curves.parquet --scheduler stopping --baseline curves/promotion --budgets 10,20`
    """
    from fer_search.emulator import fit_emulator, recorded_space
    from fer_search.simulate import BASELINES, Setting
    from fer_search.simulate import simulate as run

    limits = _budgets(budgets)
    asked = Setting(searcher, scheduler, eta, first_rung)
    rivals = {name: Setting.baseline(name) for name in baseline or BASELINES}
    sources = {source: _read(source, runs) for source in curves or [SHIPPED_NAME]}
    spaces = [recorded_space(recorded, source=Path(source), schedule=schedule) for source, recorded in sources.items()]
    if problems := [line for space in spaces for line in asked.problems(space)]:
        raise InvalidInput(list(dict.fromkeys(problems)))
    own = ", ".join(f"{key} {value}" for key, value in asked.changes.items()) or OWN
    others = {
        name: rival
        for name, rival in rivals.items()
        if any(rival.apply(space) != asked.apply(space) for space in spaces)
    }
    settings = {own: asked, **others}
    with err.status("fitting the emulator"):
        emulators = {
            source: fit_emulator(recorded, source=Path(source), schedule=schedule)
            for source, recorded in sources.items()
        }
    with err.status(f"replaying {len(settings) * len(spaces) * seeds} searches"):
        outcomes = run(
            list(emulators.values()),
            settings,
            num_seeds=seeds,
            num_workers=workers,
            budgets=limits,
            num_jobs=jobs or os.cpu_count() or 1,
        )
    if as_json:
        print_json(_as_json(emulators, sources, asked, outcomes, limits, workers=workers))
        return
    for source, emulator in emulators.items():
        for line in problem_lines(source, sources[source].data, emulator, asked):
            out.print(line, markup=False)
    print_table(regrets_table(outcomes, limits, workers=workers))
    if len(outcomes) > 1:
        print_table(differences_table(outcomes, limits))


def _budgets(text: str) -> list[int]:
    parts = text.split(",")
    found = [int(part) for part in parts if part.strip().isdecimal()]
    if len(found) < len(parts) or found[0] < 1 or found != sorted(set(found)):
        rule = "must be whole numbers from 1, ascending, with commas between them"
        raise InvalidInput(problem("command line", "budgets", rule, text))
    return found


def _read(source: str, runs: Path) -> "RecordedCurves":
    """Read a file, or the journal of the search with this name."""
    from fer_search.recorded_curves import RecordedCurves

    if source == SHIPPED_NAME:
        return RecordedCurves.read(SHIPPED)
    if source.endswith(".parquet"):
        return RecordedCurves.read(Path(source))
    from fer_search.search_result import read_search

    result = read_search(source, runs=runs)
    return RecordedCurves.of_trials(
        result.trials,
        table=result.settings["space"],
        metric=result.space.metric,
        num_epochs=result.space.horizon,
        data=result.settings["data"]["source"],
    )


def _as_json(
    emulators: dict[str, "Emulator"],
    sources: dict[str, "RecordedCurves"],
    asked: "Setting",
    outcomes: dict[str, "Outcome"],
    budgets: list[int],
    *,
    workers: int,
) -> dict[str, Any]:
    first = next(iter(outcomes.values()))
    return {
        "curves": [
            {
                "source": source,
                "data": sources[source].data,
                "setting": asked.described(emulator.space),
                "emulator": asdict(emulator.quality),
                "best": emulator.best,
                "median": emulator.median,
            }
            for source, emulator in emulators.items()
        ],
        "budgets": budgets,
        "workers": workers,
        "settings": [
            {
                "name": name,
                "regret": outcome.mean.tolist(),
                "intervals": outcome.intervals,
                "difference_of_first": (first.mean - outcome.mean).tolist(),
                "p_values": first.p_values(outcome),
                "trials": outcome.num_trials,
                "complete": outcome.num_complete,
                "by_seed": outcome.regrets.tolist(),
            }
            for name, outcome in outcomes.items()
        ],
    }
