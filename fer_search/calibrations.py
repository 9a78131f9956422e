"""The calibration of a space's rungs as a run on disk: which early epoch, and which way of judging, tells who is best.

Configurations are trained to the horizon twice: with one OneCycle, whose rates are still high at a rung, and with one
that begins anew after every rung, so that each is judged annealed. Both cost a search the same up to a rung.
"""

import logging
import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any
from uuid import uuid4

import numpy as np
from scipy.stats import qmc

from fer_search.chance import ACCURACIES
from fer_search.data.faces import Faces
from fer_search.errors import InvalidInput, problem
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal, TrialRecord, read_journal, reproducible
from fer_search.races import objective_on
from fer_search.rank_agreement import Agreement, cheapest, rank_agreements, strongest
from fer_search.record import Follow, check_fingerprint, describe_data, package_versions, recorded
from fer_search.recorded_curves import Curves, RecordedCurves
from fer_search.runs import SETTINGS, read_settings, run_directory
from fer_search.searches import default_resources, prepare
from fer_search.spaces import check_corners
from fer_search.tracking_uri import check_uri, local_store
from fer_search.tuning.connection import Resources, check_resources, connected
from fer_search.tuning.encoding import Encoding
from fer_search.tuning.exhaustive import ExhaustiveState, Training
from fer_search.tuning.run import run_trials
from fer_search.tuning.space import Point, Space

logger = logging.getLogger(__name__)

CALIBRATE = "calibrate"
CURVES = "curves.parquet"
ONECYCLE, ANNEALED = "onecycle", "annealed"
MIN_CONFIGURATIONS = 4


@dataclass(frozen=True)
class Verdict:
    """The rung and way that agree `best` with the end, and the `cheapest` that is about as good.

    `settings` are what a space file is to say: `first_rung`, `metric` and `restarts`. Both are None where no rung ranks
    better than chance would.
    """

    best: Agreement
    cheapest: Agreement | None
    settings: dict[str, Any] | None


@dataclass(frozen=True)
class Calibration:
    """A calibration in `directory`; `recorded` is None while trainings are left to do."""

    directory: Path
    space: Space
    recorded: RecordedCurves | None

    def agreements(self) -> list[Agreement]:
        """Return how each epoch before the last agrees with the space's metric at the end of the plain OneCycle."""
        assert self.recorded is not None
        curves, metric = self.recorded.curves, self.space.metric
        judged = [key for key in dict.fromkeys((*ACCURACIES, metric)) if key in curves[ONECYCLE]]
        ways = {(schedule, key): found[key][:, :-1] for schedule, found in curves.items() for key in judged}
        return rank_agreements(ways, curves[ONECYCLE][metric][:, -1], eta=self.space.eta, seed=self.space.seed)

    def verdict(self, agreements: list[Agreement]) -> Verdict:
        """Return which of the space's rungs to begin with, and how to judge there."""
        rungs = self.space.rungs
        at_rungs = [each for each in agreements if each.epoch in rungs]
        best, chosen = strongest(at_rungs), cheapest(at_rungs)
        if chosen is None:
            return Verdict(best, None, None)
        restarts = [rung for rung in rungs if rung >= chosen.epoch] if chosen.schedule == ANNEALED else []
        settings = {"first_rung": chosen.epoch, "metric": chosen.metric, "restarts": restarts}
        return Verdict(best, chosen, settings)


def calibrate(
    space_file: Path,
    *,
    name: str,
    num_configurations: int = 24,
    data: str = "synthetic",
    overrides: Mapping[str, Any] | None = None,
    resources: Resources | None = None,
    address: str | None = None,
    tracking_uri: str | None = None,
    runs: Path = Path("runs"),
    follow: Follow | None = None,
) -> Calibration:
    """Train configurations of a space to the horizon in both schedules; the same call goes on after an interruption.

    Of the `num_configurations` of `space_file` the space's own settings come first, the others are drawn where it
    expects good values (a scrambled Sobol sequence). `agreements` of what is returned are Kendall's tau, with bootstrap
    intervals, of each epoch's order with the last one's. What was learned is in `curves.parquet` of the directory
    `name`, too. `data`, `overrides`, `resources`, `address`, `tracking_uri`, `runs` and `follow` are those of `search`.
    Raises InvalidInput before any work starts, also where the calibration there is another one.
    """
    directory = run_directory(runs, name)
    if num_configurations < MIN_CONFIGURATIONS:
        rule = f"must be at least {MIN_CONFIGURATIONS}: fewer have no order to speak of"
        raise InvalidInput(problem("command line", "configurations", rule, num_configurations))
    plan = prepare(space_file, data=data, overrides=overrides, num_trials=None)
    space = plan.space
    schedules = {ONECYCLE: space, ANNEALED: _annealed(space, source=space_file)}
    check_corners(schedules[ANNEALED], plan.faces.form, num_images=len(plan.splits.fit), source=space_file)
    uri = tracking_uri or local_store(runs)
    check_uri(uri)
    resources = resources or default_resources()
    asked = {
        "space": plan.table,
        "parameters": space.parameters,
        "num_configurations": num_configurations,
        "tracking_uri": uri,
    }
    settings = {
        "kind": CALIBRATE,
        "search_id": _search_id(directory, asked, plan.faces),
        "space_file": str(space_file),
        **asked,
        "resources": asdict(resources),
        "address": address,
        "data": describe_data(data, plan.faces, plan.splits),
        "versions": package_versions(),
    }
    points = draw_points(space, num_configurations)
    trainings = [
        Training(each.complete(point), {"configuration": number, "schedule": schedule})
        for number, point in enumerate(points)
        for schedule, each in schedules.items()
    ]
    if not _state(directory, trainings, space).finished:
        with connected(address):
            check_resources(resources)
            with recorded(
                directory,
                settings,
                title=directory.name,
                tags={"space": space_file.name},
                follow=follow,
                parent_params={"num_configurations": num_configurations, "horizon": space.horizon},
            ) as outcome:
                state = _state(directory, trainings, space)  # anew, now that no other process can write to its journal
                objective = objective_on(plan.splits, resources)
                outcome.finished = run_trials(objective, state, directory, resources=resources, address=address)
        if not outcome.finished:
            return Calibration(directory, space, None)
    about = f"{Path(data).name}: {len(plan.splits.fit)} images to learn from, {len(plan.splits.validation)} to judge on"
    curves = collect_curves(directory, plan.table, points, horizon=space.horizon, about=about)
    curves.write(directory / CURVES)
    return Calibration(directory, space, curves)


def draw_points(space: Space, count: int) -> list[Point]:
    """Return `count` points: the space's own settings, and a scrambled Sobol sequence through its priors."""
    encoding = Encoding(space.domains)
    sequence = qmc.Sobol(encoding.num_parameters, rng=np.random.default_rng([space.seed, *CALIBRATE.encode()]))
    uniform = sequence.random_base2(math.ceil(math.log2(count)))[: count - 1]  # balanced in powers of two alone
    return [space.first_point, *(space.fill(encoding.decode(each)) for each in encoding.drawn(uniform, space.priors))]


def collect_curves(
    directory: Path, table: dict[str, Any], points: list[Point], *, horizon: int, about: str
) -> RecordedCurves:
    """Return the curves of the finished calibration in `directory`, of all configurations but those that broke.

    What a diverged training did not reach is NaN. Raises InvalidInput where too few were trained to the end.
    """
    records: dict[int, dict[str, TrialRecord]] = {}
    for record in read_journal(directory / JOURNAL):
        records.setdefault(record.point["configuration"], {})[record.point["schedule"]] = record
    broken = [n for n, each in records.items() if any(r.state == "FAIL" and not r.diverged for r in each.values())]
    if broken:
        logger.warning("left out, since they broke (see %s): configurations %s", directory / "errors", broken)
    kept = [number for number in sorted(records) if number not in broken]
    complete = [n for n in kept if all(record.state == "COMPLETE" for record in records[n].values())]
    if len(complete) < MIN_CONFIGURATIONS:
        rule = f"must hold at least {MIN_CONFIGURATIONS} that were trained to the end"
        raise InvalidInput(problem(directory, "configurations", rule, len(complete)))
    epochs = [metrics for number in kept for record in records[number].values() for metrics in record.epochs]
    # Averaged weights may be off.
    names = [name for name in reproducible(epochs[0]) if all(name in metrics for metrics in epochs)]
    curves = {
        schedule: _curves([records[number][schedule] for number in kept], names, horizon)
        for schedule in (ONECYCLE, ANNEALED)
    }
    return RecordedCurves(table, [points[number] for number in kept], curves, about)


def _state(directory: Path, trainings: list[Training], space: Space) -> ExhaustiveState:
    return ExhaustiveState(trainings, Journal(directory / JOURNAL), metric=space.metric, horizon=space.horizon)


def _annealed(space: Space, *, source: Path) -> Space:
    """Return the space with restarts at all of its rungs; raises InvalidInput without rungs, or with restarts."""
    problems = []
    if restarts := space.parameters["restarts"]:
        rule = "must be empty, since calibrate trains without restarts and with those at the rungs"
        problems.append(problem(source, "base.restarts", rule, restarts))
    if not space.rungs:
        rule = f"must have a rung before the last of {space.horizon} epochs (first_rung, scheduler)"
        problems.append(problem(source, "search", rule, "none"))
    if problems:
        raise InvalidInput(problems)
    return replace(space, parameters={**space.parameters, "restarts": list(space.rungs)})


def _search_id(directory: Path, asked: Mapping[str, Any], faces: Faces) -> str:
    """Return the id of the calibration there, or a new one; raises InvalidInput where another one was asked for."""
    if not (directory / SETTINGS).exists():
        return uuid4().hex
    there = read_settings(directory, kind=CALIBRATE)
    rule = "must be as in the calibration there (remove the directory to start anew)"
    if different := [key for key in asked if asked[key] != there[key]]:
        raise InvalidInput([problem(directory, key, rule, asked[key]) for key in different])
    check_fingerprint(faces, there)
    return str(there["search_id"])


def _curves(records: list[TrialRecord], names: list[str], horizon: int) -> Curves:
    curves = {name: np.full((len(records), horizon), np.nan) for name in names}
    for row, record in enumerate(records):
        for column, metrics in enumerate(record.epochs):
            for name in names:
                curves[name][row, column] = metrics[name]
    return curves
