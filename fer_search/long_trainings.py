"""What the long trainings of a search's trials left on disk: how the seeds did, which one counts, whether ranks held.

<search>/retrain/            the winner, with the first fresh seed
<search>/retrain/seed_1/     the same with the second, and so on
<search>/retrain_00012/      trial 12, which was asked for by its number
"""

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_search.errors import InvalidInput, problem
from fer_search.journal import TrialRecord
from fer_search.recipe import absent_class_fields
from fer_search.record import form_of
from fer_search.runs import LOGITS, RESULT, SETTINGS, read_json
from fer_search.tuning.agreement import Agreement, rank_agreement
from fer_search.tuning.race import Standing, mean_interval

RETRAIN = "retrain"
SPLITS = ("validation", "public", "public_unique")


@dataclass(frozen=True)
class LongTraining:
    """A finished training in `directory`, of a trial of the search (None where the training does not say of which)."""

    directory: Path
    trial: int | None
    result: dict[str, Any]

    def accuracy(self, split: str) -> float | None:
        """Return the accuracy on a split with the views that search-validation chose; None where it has no image."""
        figures = self.result["metrics"].get(split)
        return None if figures is None else float(figures[self.result["prediction"]["views"]]["accuracy"])

    @property
    def merit(self) -> tuple[float, float]:
        """What trainings of several seeds are compared by: accuracy, then likelihood, both on search-validation."""
        prediction = self.result["prediction"]
        return prediction["val_accuracy"][prediction["views"]], -prediction["val_nll"][prediction["views"]]


@dataclass(frozen=True)
class HorizonAgreement:
    """How the trials that were trained for `epochs` rank there and in the search, by their numbers.

    `short` holds the race's means where all of them raced, else the search's values at the horizon; `long` the means
    over seeds on search-validation.
    """

    epochs: int
    short_from: str
    short: dict[int, float]
    long: dict[int, float]
    agreement: Agreement | None


def retrain_directory(search: Path, trial: int | None) -> Path:
    """Return where the long trainings of a trial are, or those of the winner."""
    return search / (RETRAIN if trial is None else f"{RETRAIN}_{trial:05d}")


def read_retraining(directory: Path) -> list[LongTraining]:
    """Return the finished trainings in a directory of `retrain`, the first seed's first; none where it is not there."""
    paths = [directory, *sorted(directory.glob("seed_*"), key=lambda path: int(path.name.removeprefix("seed_")))]
    return [LongTraining(path, _trial_of(path), read_json(path / RESULT)) for path in paths if (path / RESULT).exists()]


def all_long_trainings(search: Path) -> list[LongTraining]:
    """Return every finished long training of a search's trials, the winner's and others'."""
    paths = sorted(path for path in search.glob(f"{RETRAIN}*") if path.is_dir())
    return [each for path in paths for each in read_retraining(path)]


def best_of_seeds(found: Sequence[LongTraining]) -> LongTraining:
    """Return the training that did best on search-validation; PublicTest has no say."""
    return max(found, key=lambda training: training.merit)


def training_to_export(run: Path, trial: int | None) -> tuple[Path, dict[str, Any] | None]:
    """Return the directory of the training whose bundle is wanted, and how it was chosen among several seeds.

    Raises InvalidInput where a search has no such training, or a training is asked for one of its trials.
    """
    kind = read_json(run / SETTINGS)["kind"]
    if kind not in ("search", "train"):
        raise InvalidInput(problem(run, "kind", "must be a search or a training", kind))
    is_search = kind == "search"
    if not is_search and trial is not None:
        raise InvalidInput(
            problem("command line", "trial", f"must not be given, since {run.name} is a training", trial)
        )
    if not is_search:
        return run, None
    directory = retrain_directory(run, trial)
    found = read_retraining(directory)
    if not found:
        option = "" if trial is None else f" --trial {trial}"
        rule = f"must be there and finished (fer-search retrain {run.name}{option})"
        raise InvalidInput(problem(directory, "training", rule, "nothing"))
    best = best_of_seeds(found)
    accuracies = {str(each.result["recipe"]["seed"]): each.merit[0] for each in found}
    selection = {"seed": best.result["recipe"]["seed"], "val_accuracy_of_seeds": accuracies}
    return best.directory, selection if len(found) > 1 else None


def seeds_summary(found: Sequence[LongTraining]) -> dict[str, Any]:
    """Return the accuracies of each seed, and for each split mean, standard deviation and the mean's interval.

    The interval is None below three seeds, the deviation below two.
    """
    best = best_of_seeds(found)
    trainings = [
        {
            "seed": each.result["recipe"]["seed"],
            "directory": str(each.directory),
            "exported": each is best,
            **{split: each.accuracy(split) for split in SPLITS},
        }
        for each in found
    ]
    splits = {}
    for split in SPLITS:
        values = [value for each in found if (value := each.accuracy(split)) is not None]
        if values:
            deviation = float(np.std(values, ddof=1)) if len(values) > 1 else None
            interval = mean_interval(values)
            splits[split] = {"mean": float(np.mean(values)), "deviation": deviation, "interval": interval}
    return {"trainings": trainings, "splits": splits}


def read_agreement(
    search: Path, trials: Sequence[TrialRecord], standings: Sequence[Standing], *, metric: str
) -> HorizonAgreement | None:
    """Return how the search ranks the trials that were trained long; None where none was.

    Only trainings with the trial's own settings, but for length and seed, and of the most frequent length are compared.
    """
    by_number = {trial.number: trial for trial in trials}
    found = [each for each in all_long_trainings(search) if _is_faithful(each, by_number)]
    if not found:
        return None
    counts = Counter(epochs for epochs, _ in {(each.result["recipe"]["epochs"], each.trial) for each in found})
    epochs = max(counts, key=lambda length: (counts[length], length))
    scores: dict[int, list[float]] = {}
    for each in found:
        value = each.accuracy("validation")
        if each.trial is not None and value is not None and each.result["recipe"]["epochs"] == epochs:
            scores.setdefault(each.trial, []).append(value)
    long = {number: float(np.mean(values)) for number, values in sorted(scores.items())}
    raced = {standing.trial: standing.mean for standing in standings if not standing.failed}
    source = "race" if long.keys() <= raced.keys() else "search"
    short = {n: raced[n] if source == "race" else by_number[n].epochs[-1][metric] for n in long}
    return HorizonAgreement(epochs, source, short, long, rank_agreement([*short.values()], [*long.values()]))


def _trial_of(directory: Path) -> int | None:
    number = read_json(directory / SETTINGS).get("tags", {}).get("trial")
    return None if number is None else int(number)


def _is_faithful(training: LongTraining, trials: Mapping[int, TrialRecord]) -> bool:
    recipe = training.result["recipe"]
    record = None if training.trial is None else trials.get(training.trial)
    if record is None or record.state != "COMPLETE":
        return False
    without_effect = absent_class_fields(form_of(training.result["data"]).classes)
    may_differ = {"epochs", "seed", *without_effect}
    return {key for key in recipe if recipe[key] != record.parameters.get(key)} <= may_differ


def read_logits(directory: Path, split: str, views: str) -> NDArray[np.float32] | None:
    """Return the logits (N, classes) of a finished training for `validation` or `public`, in the order of its faces.

    None where an older version, which did not keep them, has trained.
    """
    if not (directory / LOGITS).exists():
        return None
    with np.load(directory / LOGITS, allow_pickle=False) as arrays:
        found: NDArray[np.float32] = arrays[f"{split}/{views}"]
    return found
