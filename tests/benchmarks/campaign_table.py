"""The campaign's results as a page: a table with a row per training or combination, read from what lies on disk."""

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from campaign_steps import BUDGETS, SEARCH, Budget, Step, first_steps, later_steps
from extrapolation import SMALLEST_DEVIATION, extrapolate
from numpy.typing import NDArray

from fer_search.data.fer2013 import load_faces
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import read_journal
from fer_search.long_trainings import best_of_seeds, read_logits, read_retraining, seeds_summary
from fer_search.recipe import Recipe
from fer_search.report import TARGET_ACCURACY
from fer_search.runs import RACE, RESULT, read_json
from fer_search.search_result import SearchResult, read_search
from fer_search.training.model_summary import summarize
from fer_search.training.paired import compare

DEFAULT = "default_long"
PUBLISHED = (
    ("EfficientNet-B2", 0.708), ("ResNet34", 0.724), ("DenseNet121", 0.732),
    ("ResMaskingNet, 143 M parameters, 10 views", 0.7414), ("ensembles of seven or eight, at most", 0.768),
)  # fmt: skip


@dataclass(frozen=True)
class Row:
    """A training or a combination: the command that made it, what it left, and its predictions where they are kept."""

    name: str
    command: str
    seeds: int
    result: dict[str, Any]
    parameters: float  # millions
    hours: float
    device: str
    standard_split: bool
    predicted: NDArray[np.int64] | None = None  # of PublicTest, with the chosen views
    paired: dict[str, Any] | None = None  # against the default, where it was measured by `evaluate`

    def figures(self, split: str, views: str | None = None) -> dict[str, Any] | None:
        """Return the figures of a split, by default with the views that search-validation chose."""
        found = self.result["metrics"].get(split)
        return None if found is None else dict(found[views or self.result["prediction"]["views"]])


def write_page(page: Path, runs: Path, *, budget: str, data: str) -> None:
    """Write the campaign's results between the markers of a Markdown page, and nothing else of it."""
    faces = load_faces(data)
    labels = faces.labels[faces.usage == "PublicTest"]
    found = results(runs, BUDGETS[budget], labels=labels, data=data)
    block = f"<!-- {budget} -->\n{found}<!-- end of {budget} -->"
    text = re.sub(rf"<!-- {budget} -->.*<!-- end of {budget} -->", lambda _: block, page.read_text(), flags=re.DOTALL)
    page.write_text(text)


def results(runs: Path, budget: Budget, *, labels: NDArray[np.int64], data: str) -> str:
    """Return the table and what follows from it as Markdown; `labels` (N,) are those of PublicTest, in its order."""
    rows = list(read_rows(runs, budget, data=data))
    parts = [table(rows, labels), *_missing(rows, runs, budget, data=data), *_distance(rows)]
    if (runs / SEARCH).exists():
        parts += _ranks(read_search(SEARCH, runs=runs))
    return "\n".join([*parts, *_curves(rows, budget)]) + "\n"


def read_rows(runs: Path, budget: Budget, *, data: str) -> Iterator[Row]:
    """Yield the rows of all steps whose results are there, in the order of the steps."""
    for step in all_steps(runs, budget, data=data):
        command = "fer-search " + " ".join(word.replace(f"{runs}/", "") for word in _shown(step.words))
        if step.name == "retrain":
            if trained := read_retraining(runs / SEARCH / "retrain"):
                best = best_of_seeds(trained)
                yield _training("winner", command, best.directory, len(trained), of=runs / SEARCH / "retrain")
        elif step.words[0] == "train" and (runs / step.name / RESULT).exists():
            yield _training(step.name, command, runs / step.name, 1, of=runs / step.name)
        elif step.may_decline and (bundle := runs / str(step.done)).exists():
            manifest, measured = read_json(bundle), runs / f"evaluate_{step.name}.json"
            paired = read_evaluation(measured)["paired"] if measured.exists() else None
            million = manifest["network"]["num_parameters"] / 1e6
            yield Row(step.name, command, 1, manifest, million, 0.0, "", standard_split=False, paired=paired)


def all_steps(runs: Path, budget: Budget, *, data: str) -> list[Step]:
    """Return the steps that do not depend on what the search found."""
    return [*first_steps(budget, data=data, runs=runs), *later_steps(budget, [], data=data, runs=runs)]


def table(rows: list[Row], labels: NDArray[np.int64]) -> str:
    """Return a row per result; the difference is to the default recipe at the long length, on PublicTest."""
    default = next((row for row in rows if row.name == DEFAULT), None)
    lines = [
        "| what | command | seeds | search-validation | PublicTest, plain | PublicTest, TTA | without copies "
        "| difference to the default, points | logit adjustment | parameters, M | hours | protocol |",
        "|---|---|---|---|---|---|---|---|---|---|---|---|",
    ]
    for row in rows:
        cells = [
            row.name,
            f"`{row.command}`",
            str(row.seeds),
            *(_share(row.figures(*each)) for each in (("validation",), ("public", "plain"), ("public", "tta"))),
            _share(row.figures("public_unique")),
            _difference(row, default, labels),
            f"tau {row.result['prediction']['tau']:+.1f}" if row.result["prediction"].get("tau") else "left out",
            f"{row.parameters:.2f}",
            f"{row.hours:.2f} {row.device}".strip(),
            "standard" if row.standard_split else "duplicate-free",
        ]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines) + "\n"


def read_evaluation(path: Path) -> dict[str, Any]:
    """Return what `evaluate --json` printed."""
    return dict(json.loads(path.read_text()))


def _training(name: str, command: str, directory: Path, seeds: int, *, of: Path) -> Row:
    result = read_json(directory / RESULT)
    recipe = Recipe.stored(result["recipe"], source=directory / RESULT)
    million = sum(part.num_parameters for part in summarize(recipe).parts if part.flops) / 1e6
    logits = read_logits(directory, "public", result["prediction"]["views"])
    return Row(
        name, command, seeds, result, million, _hours(of.rglob(JOURNAL)), result["trained_on"]["device"].upper(),
        standard_split=not recipe.drop_test_duplicates, predicted=None if logits is None else logits.argmax(1),
    )  # fmt: skip


def _difference(row: Row, default: Row | None, labels: NDArray[np.int64]) -> str:
    if default is None or row is default:
        return ""
    paired = row.paired
    if row.predicted is not None and default.predicted is not None and len(row.predicted) == len(labels):
        paired = compare(row.predicted, default.predicted, labels, num_classes=int(labels.max()) + 1)
    if paired is None:
        return "not paired"
    return f"{paired['accuracy_difference']['value'] * 100:+.1f} (p = {paired['mcnemar_p']:.2g})"


def _missing(rows: list[Row], runs: Path, budget: Budget, *, data: str) -> list[str]:
    names = {row.name for row in rows} | ({"retrain"} if any(row.name == "winner" for row in rows) else set())
    wanted = [
        step.name
        for step in all_steps(runs, budget, data=data)
        if step.words[0] in ("train", "retrain") or step.may_decline
    ]
    left = [name for name in wanted if name not in names]
    return [f"Without a result: {', '.join(left)}.\n"] if left else []


def _distance(rows: list[Row]) -> list[str]:
    """Return how far the best row by search-validation is from the target and from what others published."""
    fair = [row for row in rows if not row.standard_split]
    if not fair:
        return []
    best = max(fair, key=lambda row: (row.figures("validation") or {}).get("accuracy", 0.0))
    figures = best.figures("public")
    assert figures is not None, "every result has PublicTest or what stands in for it"
    against = ", ".join(f"{(figures['accuracy'] - value) * 100:+.1f} to {name}" for name, value in PUBLISHED)
    return [
        f"Best on search-validation is {best.name}: {_share(figures)} on PublicTest, "
        f"{(figures['accuracy'] - TARGET_ACCURACY) * 100:+.1f} points to the design's target of {TARGET_ACCURACY:.0%}. "
        f"Against credible published figures (PrivateTest, so that the images differ), in points: {against}.\n"
    ]


def _ranks(search: SearchResult) -> list[str]:
    """Return whether the search ranked as long trainings do, and what that says of its horizon."""
    found = search.rank_agreement()
    own, raced = _hours([search.directory / JOURNAL]), _hours((search.directory / RACE).rglob(JOURNAL))
    lines = [f"The search's {len(search.trials)} trials took {own:.2f} hours, its race {raced:.2f}.\n"]
    if trained := read_retraining(search.directory / "retrain"):
        summary = seeds_summary(trained)["splits"]["public"]
        if summary["interval"]:
            low, high = summary["interval"]
            lines.append(
                f"The winner's seeds have {summary['mean']:.1%} on PublicTest ({low:.1%} to {high:.1%}), "
                f"standard deviation {summary['deviation'] * 100:.1f} points.\n"
            )
    if found is None or found.agreement is None or found.agreement.tau is None:
        return [*lines, "Kendall's tau: too few configurations were trained long.\n"]
    agreement, horizon = found.agreement, search.space.horizon
    low, high = agreement.interval or (-1.0, 1.0)
    if low > 0.5:
        verdict = "The horizon ranks as long trainings do, and stays"
    elif high < 0.5:
        verdict = "The horizon is too short to rank by, and should be longer"
    else:
        verdict = "That decides nothing about the horizon, which stays"
    return [
        *lines,
        f"Kendall's tau between {horizon} epochs ({found.short_from}) and {found.epochs}, over {agreement.num_ranked} "
        f"configurations spread over those that came to the horizon: {agreement.tau:.2f} ({low:.2f} to {high:.2f}). "
        f"{verdict}.\n",
    ]


def _curves(rows: list[Row], budget: Budget) -> Iterator[str]:
    """Yield what the default recipe's trainings of several lengths, and on several numbers of images, say of more."""
    by_name = {row.name: row for row in rows}
    deviation = SMALLEST_DEVIATION
    curves: Mapping[str, tuple[list[str], str, float]] = {
        "epochs": (["default_short", *(f"length_{each}" for each in budget.lengths), DEFAULT], "epochs", 300),
        "images": ([*(f"fraction_{each}" for each in budget.fractions), DEFAULT], "num_fit", 25_000),
    }
    for unit, (names, key, goal) in curves.items():
        points = [
            (row.result["recipe"].get(key) or row.result["data"][key], figures["accuracy"], figures["num_images"])
            for name in names
            if (row := by_name.get(name)) and (figures := row.figures("public"))
        ]
        if len(points) < 3:
            continue
        sizes, accuracies, (num_images, *_) = zip(*points, strict=True)
        at = [size for size in (2 * max(sizes), goal) if size > max(sizes)] or [2 * max(sizes)]
        found = extrapolate(sizes, accuracies, num_images=num_images, seed_deviation=deviation, at=at)
        seen = ", ".join(f"{accuracy:.1%} of {size:,}" for size, accuracy in zip(sizes, accuracies, strict=True))
        ahead = ", ".join(f"{each.value:.1%} ({each.low:.1%} to {each.high:.1%}) at {each.size:,.0f}" for each in found)
        yield f"The default recipe on PublicTest by {unit}: {seen}. A power law expects {ahead}.\n"


def _hours(journals: Iterable[Path]) -> float:
    """Return how long the epochs took that are in journals, those that ran at once one after the other."""
    return sum(trial.place_seconds for path in journals for trial in read_journal(path)) / 3600


def _share(figures: Mapping[str, Any] | None) -> str:
    if figures is None:
        return ""
    return f"{figures['accuracy']:.1%} ({figures['accuracy_low']:.1%} to {figures['accuracy_high']:.1%})"


def _shown(words: tuple[str, ...]) -> list[str]:
    """Return the words without those that are the same in every command."""
    left, shown = iter(words), []
    for word in left:
        if word in ("--data", "--runs"):
            next(left)
        elif word != "--quiet":
            shown.append(word)
    return shown
