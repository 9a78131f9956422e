"""The plots of a search's trials."""

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import matplotlib as mpl
import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.ticker import MaxNLocator
from numpy.typing import NDArray
from optuna.distributions import CategoricalDistribution

from fer_search.html_report.drawing import (
    BLUE,
    COLOR_MAP,
    GREEN,
    GREY,
    MOST_VECTORS,
    ORANGE,
    Plot,
    drawn,
    percent_axis,
)
from fer_search.journal import TrialRecord
from fer_search.search_result import SearchResult
from fer_search.tuning.race import Standing
from fer_search.tuning.space import Space

if TYPE_CHECKING:
    from fer_search.tuning.importance import Importances

SLICES_A_ROW = 3


def learning_curves(result: SearchResult) -> Plot:
    """Draw every trial's metric over its epochs, the best and the first one above the others."""
    metric, trials = result.space.metric, [trial for trial in result.trials if trial.epochs]
    best = result.leaderboard()[0]
    with drawn() as (figure, axes):
        lines = [list(enumerate(_curve(trial, metric), start=1)) for trial in trials]
        axes.add_collection(
            LineCollection(lines, colors=GREY, linewidths=0.8, alpha=0.5, rasterized=len(lines) > MOST_VECTORS)
        )
        ends = np.array([line[-1] for line, trial in zip(lines, trials, strict=True) if trial.state == "PRUNED"])
        if len(ends):
            axes.scatter(*ends.T, s=8, color=GREY, label="stopped", rasterized=len(lines) > MOST_VECTORS)
        others = [] if best.number == 0 else [(result.trials[0], ORANGE, "the space's own settings")]
        for trial, color, label in (*others, (best, BLUE, "best" if others else "best, and the space's own settings")):
            if trial.epochs:
                curve = _curve(trial, metric)
                name = f"{label}: trial {trial.number}"
                axes.plot(range(1, len(curve) + 1), curve, color=color, linewidth=2, marker=".", label=name)
        for rung in result.space.rungs:
            axes.axvline(rung, color=GREY, linestyle=":", linewidth=1)
        axes.set_xlabel("epoch (dotted: rungs)")
        axes.xaxis.set_major_locator(MaxNLocator(integer=True))
        percent_axis(axes, metric)
        axes.legend(frameon=False, loc="lower right")
    num_complete = sum(trial.state == "COMPLETE" for trial in trials)
    return Plot(
        "learning_curves",
        figure,
        f"{metric} over epochs of {len(trials)} trials, {num_complete} of which reached epoch {result.space.horizon}; "
        f"the best, trial {best.number}, ends at {best.last(metric) or 0:.4f}.",
        "A trial that was stopped at a rung ends there with a dot.",
    )


def parallel_coordinates(result: SearchResult) -> Plot:
    """Draw each trial as a line through its parameters, coloured by its rank."""
    space, trials = result.space, result.leaderboard()[::-1]  # the best above the others
    columns = [_positions(trials, name, space) for name in space.searched]
    standing = np.linspace(0, 1, len(trials)) if len(trials) > 1 else np.ones(1)
    heights = np.array([*(column for column, _ in columns), standing]).T
    with drawn(8.0, 4.2) as (figure, axes):
        colors = COLOR_MAP(standing)
        lines = LineCollection(
            [list(enumerate(each)) for each in heights],
            colors=colors, linewidths=0.5 + 1.5 * standing, alpha=0.7, rasterized=len(trials) > MOST_VECTORS,
        )  # fmt: skip
        axes.add_collection(lines)
        for column, (_, ticks) in enumerate(columns):
            axes.axvline(column, color=GREY, linewidth=0.8)
            for height, label in ticks:
                axes.annotate(label, (column, height), (3, 0), textcoords="offset points", fontsize=8, va="center")
        axes.axvline(len(columns), color=GREY, linewidth=0.8)
        axes.set_xticks(range(len(columns) + 1), [*space.searched, "rank"], rotation=20, ha="right")
        axes.set_yticks([])
        axes.spines["left"].set_visible(False)
        axes.set(xlim=(-0.1, len(columns) + 0.3), ylim=(-0.05, 1.05))
    return Plot(
        "parallel_coordinates",
        figure,
        f"A line per trial through the values of {', '.join(space.searched)}; the best trials are light.",
        "Each line is a trial, light and thick where it ranks high; trials that came further rank above others.",
    )


def importances(found: "Importances") -> Plot:
    """Draw how much the ranks hang on each parameter, with the 95 % intervals."""
    parameters = found.parameters[::-1]
    with drawn(8.0, 1.0 + 0.3 * len(parameters)) as (figure, axes):
        for row, each in enumerate(parameters):
            color = BLUE if each.low > 0 else GREY
            axes.barh(row, max(each.importance, 0.0), color=color, alpha=0.6, height=0.6)
            axes.plot([each.low, each.high], [row, row], color=color, linewidth=2)
        axes.set_yticks(range(len(parameters)), [each.parameter for each in parameters])
        axes.axvline(0, color=GREY, linewidth=0.8)
        axes.set_xlabel("share of the ranks' variance")
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    proven = [each.parameter for each in found.parameters if each.low > 0]
    return Plot(
        "importances",
        figure,
        f"Bars of importance; those with a proven effect, in order: {', '.join(proven) or 'none'}.",
        f"From the ranks of {found.num_trials} trials, with 95 % intervals; grey: no proven effect. Together the "
        f"parameters explain {found.explained:.0%} of the ranks' variance.",
    )


def slices(result: SearchResult) -> Plot:
    """Draw the metric over each parameter's values."""
    space = result.space
    trials = [trial for trial in result.trials if trial.epochs]
    rows = -(-len(space.searched) // SLICES_A_ROW)
    reached = np.array([len(trial.epochs) for trial in trials])
    values = [trial.last(space.metric) or 0.0 for trial in trials]
    order = np.argsort(reached, kind="stable")
    with drawn(8.0, 2.4 * rows, rows=rows, columns=SLICES_A_ROW) as (figure, grid):
        for axes, name in zip(np.ravel(grid), space.searched, strict=False):
            own = [trial.parameters[name] for trial in trials]
            heights = np.array(values)
            at: Any = own
            if not _is_numeric(own):
                names = sorted({str(value) for value in own})
                at = [names.index(str(value)) for value in own]
                axes.set_xticks(range(len(names)), names, rotation=20, ha="right")
            elif _is_log(space, name):
                axes.set_xscale("log")
                axes.xaxis.set_major_formatter("{x:g}")
                axes.minorticks_off()
            else:
                axes.xaxis.set_major_locator(MaxNLocator(4, steps=[1, 2, 5, 10]))
            points = axes.scatter(
                np.array(at)[order], heights[order], c=reached[order], cmap=COLOR_MAP, s=12,
                rasterized=len(trials) > MOST_VECTORS,
            )  # fmt: skip
            axes.set_title(name, fontsize=10)
            axes.yaxis.set_visible(axes.get_subplotspec().is_first_col())
            if space.metric.startswith("val_accuracy"):
                axes.yaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
        for axes in np.ravel(grid)[len(space.searched) :]:
            axes.set_visible(False)
        whole = MaxNLocator(integer=True)
        figure.colorbar(points, ax=np.ravel(grid).tolist(), label="epochs", shrink=0.8, ticks=whole)
    return Plot(
        "slices",
        figure,
        f"{space.metric} of {len(trials)} trials over each of {', '.join(space.searched)}.",
        f"Last {space.metric} of each trial. Compare points of one colour: those with as many epochs.",
    )


def contour(result: SearchResult, names: Sequence[str]) -> Plot | None:
    """Draw how trials rank over two parameters; None where too few have them as numbers, or all are on a line."""
    space, trials = result.space, [trial for trial in result.trials if trial.epochs]
    own = [[trial.parameters[name] for trial in trials] for name in names]
    if len(trials) < 2 * len(names) + 1 or not all(_is_numeric(each) and len(set(each)) > 2 for each in own):
        return None
    places = [_positions(trials, name, space)[0] for name in names]
    if np.linalg.matrix_rank(np.cov(places), tol=1e-6) < len(names):
        return None
    ranks = _ranks_within_level(trials, space)
    with drawn(6.0, 4.2) as (figure, axes):
        filled = axes.tricontourf(*places, ranks, levels=np.linspace(0, 1, 11), cmap=COLOR_MAP, alpha=0.9)
        dots = axes.scatter(*places, c=ranks, cmap=COLOR_MAP, s=14, edgecolors="white", linewidths=0.5)
        for each in (filled, dots):
            each.set_rasterized(len(trials) > MOST_VECTORS)
        for set_ticks, name in ((axes.set_xticks, names[0]), (axes.set_yticks, names[1])):
            ticks = _positions(trials, name, space)[1]
            set_ticks([height for height, _ in ticks], [label for _, label in ticks])
        axes.set(xlabel=names[0], ylabel=names[1], xlim=(-0.04, 1.04), ylim=(-0.04, 1.04))
        figure.colorbar(filled, ax=axes, label="rank among those that came as far (1: best)")
    return Plot(
        "contour",
        figure,
        f"How trials rank over {names[0]} and {names[1]}.",
        "Linear between the trials (dots); where there are few dots it says little.",
    )


def race(standings: Sequence[Standing]) -> Plot:
    """Draw each entrant's scores with fresh seeds and the interval of their mean."""
    entrants = [standing for standing in standings if standing.scores][::-1]
    with drawn(8.0, 1.0 + 0.35 * len(entrants)) as (figure, axes):
        for row, standing in enumerate(entrants):
            color = GREEN if standing.in_race else GREY
            axes.scatter(standing.scores, [row] * len(standing.scores), color=color, s=14, alpha=0.6)
            if (interval := standing.interval) is not None:
                axes.plot(interval, [row, row], color=color, linewidth=2)
            axes.plot(standing.mean, row, marker="|", markersize=14, color=color)
        axes.set_yticks(range(len(entrants)), [f"trial {standing.trial}" for standing in entrants])
        axes.xaxis.set_major_formatter(mpl.ticker.PercentFormatter(1.0))
    leaders = ", ".join(str(standing.trial) for standing in entrants[::-1] if standing.in_race)
    return Plot(
        "race",
        figure,
        f"Scores of {len(entrants)} entrants with fresh seeds; still in: {leaders}.",
        "A dot per seed that had no part in the choice; line: 95 % interval of the mean; green: may still be the best.",
    )


def epochs_spent(result: SearchResult) -> Plot:
    """Draw how many epochs went into trials that ended at each number of epochs."""
    levels = sorted({len(trial.epochs) for trial in result.trials if trial.epochs})
    spent = [sum(len(trial.epochs) for trial in result.trials if len(trial.epochs) == level) for level in levels]
    total, all_of_it = sum(spent), len(result.trials) * result.space.horizon
    with drawn(8.0, 2.6) as (figure, axes):
        axes.bar(range(len(levels)), spent, color=BLUE, alpha=0.7)
        axes.set_xticks(range(len(levels)), [str(level) for level in levels])
        axes.set(xlabel="epochs that a trial got", ylabel="epochs spent on such trials")
    return Plot(
        "epochs_spent",
        figure,
        f"{total} epochs in all; {spent[-1]} of them in trials with {levels[-1]}.",
        f"{total:,} epochs: {total / all_of_it:.0%} of the {all_of_it:,} of all trials trained to the end.",
    )


def _curve(trial: TrialRecord, metric: str) -> list[float]:
    return [metrics.get(metric, float("nan")) for metrics in trial.epochs]


def _is_numeric(values: Sequence[Any]) -> bool:
    return all(isinstance(value, (int, float)) and not isinstance(value, bool) for value in values)


def _is_log(space: Space, parameter: str) -> bool:
    domains = [each.domain for each in space.dimensions.values() if each.parameter == parameter]
    return any(not isinstance(domain, CategoricalDistribution) and domain.log for domain in domains)


def _positions(
    trials: Sequence[TrialRecord], name: str, space: Space
) -> tuple[NDArray[np.float64], list[tuple[float, str]]]:
    """Return where each trial's value lies from 0 to 1, and places with labels for an axis of it."""
    values = [trial.parameters[name] for trial in trials]
    if not _is_numeric(values):
        names = sorted({str(value) for value in values})
        step = 1 / max(len(names) - 1, 1)
        places = np.array([names.index(str(value)) * step for value in values])
        return places, [(index * step, label) for index, label in enumerate(names)]
    is_log = _is_log(space, name) and min(values) > 0
    scaled = np.log(values) if is_log else np.array(values, dtype=float)
    low, high = scaled.min(), scaled.max()
    places = (scaled - low) / (high - low) if high > low else np.full(len(scaled), 0.5)
    ends = (low, (low + high) / 2, high) if high > low else (low,)
    labels = [f"{np.exp(end) if is_log else end:.3g}" for end in ends]
    return places, list(zip((0.0, 0.5, 1.0) if high > low else (0.5,), labels, strict=True))


def _ranks_within_level(trials: Sequence[TrialRecord], space: Space) -> NDArray[np.float64]:
    """Return each trial's rank among those that had as many epochs, from 0 to 1, the best."""
    from scipy.stats import rankdata

    values = np.array([trial.last(space.metric) or 0.0 for trial in trials])
    reached = np.array([len(trial.epochs) for trial in trials])
    ranks = np.ones(len(trials))
    for level in np.unique(reached):
        at = reached == level
        if at.sum() > 1:
            ranks[at] = (rankdata(values[at]) - 1) / (at.sum() - 1)
    return ranks
