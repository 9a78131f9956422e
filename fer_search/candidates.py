"""The finished trainings that a soup or an ensemble is chosen from: read, and checked to be comparable."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from fer_search.data.faces import ImageForm
from fer_search.data.fer2013 import load_faces
from fer_search.data.splits import JUDGED_BY, Splits
from fer_search.errors import InvalidInput, problem
from fer_search.long_trainings import LongTraining, all_long_trainings, read_logits, read_retraining
from fer_search.recipe import Recipe
from fer_search.record import check_fingerprint, form_of, split_for
from fer_search.runs import LOGITS, RESULT, SETTINGS, existing_run, read_json

PLAIN = "plain"
"""The view set without augmentation, in which networks are compared while a choice among them is made."""


@dataclass(frozen=True)
class Candidate:
    """A finished training, by its directory's name within the directory of all runs."""

    name: str
    training: LongTraining
    recipe: Recipe

    @property
    def form(self) -> ImageForm:
        """The form of the images that it was trained on."""
        return form_of(self.training.result["data"])

    @property
    def views(self) -> str:
        """The views that search-validation chose for it."""
        return str(self.training.result["prediction"]["views"])

    def temperature(self, views: str) -> float:
        """Return the temperature of its answers in these views."""
        return float(self.training.result["prediction"]["temperature"][views])

    def predicted(self, views: str) -> NDArray[np.float32]:
        """Return the logits (N, classes) of search-validation that it predicts with."""
        found = read_logits(self.training.directory, "validation", views)
        assert found is not None, "it was checked when the candidate was read"
        return found

    def logits(self, views: str) -> NDArray[np.float32]:
        """Return its network's own logits (N, classes) of search-validation: an adjustment is left to the whole."""
        prediction, found = self.training.result["prediction"], self.predicted(views)
        tau = prediction.get("tau", 0.0)
        if not tau:
            return found
        adjustment: NDArray[np.float32] = self.temperature(views) * tau * np.array(prediction["log_prior"], np.float32)
        return found + adjustment

    def described(self) -> dict[str, Any]:
        """Return what a manifest says of it; the figures are of search-validation."""
        prediction = self.training.result["prediction"]
        return {
            "name": self.name,
            "trial": self.training.trial,
            "seed": self.recipe.seed,
            "recipe_digest": self.recipe.digest(),
            "views": self.views,
            "val_accuracy": prediction["val_accuracy"][self.views],
            "val_nll": prediction["val_nll"][self.views],
        }


def read_candidates(runs: Path, names: Sequence[str]) -> list[Candidate]:
    """Return the finished trainings of these searches and trainings, the best on search-validation first.

    Of trainings of one recipe there is the first. Raises InvalidInput, with all problems, for names without a finished
    training and for trainings that were not made on the same data with the same images kept for judging.
    """
    problems = [
        problem("command line", "with", "must be given once, and not be what is exported", name)
        for name, count in Counter(names).items()
        if count > 1
    ]
    found: dict[str, Candidate] = {}
    for name in dict.fromkeys(names):
        directory = existing_run(runs, name)
        is_search = read_json(directory / SETTINGS)["kind"] == "search"
        trainings = all_long_trainings(directory) if is_search else read_retraining(directory)
        if not trainings:
            rule = f"must hold a finished training{' (fer-search retrain ' + name + ')' if is_search else ''}"
            problems.append(problem(directory, "training", rule, "none"))
        for training in trainings:
            recipe = Recipe.stored(training.result["recipe"], source=training.directory / RESULT)
            path = training.directory.relative_to(directory.parent).as_posix()
            found.setdefault(recipe.digest(), Candidate(path, training, recipe))
    candidates = list(found.values())
    problems += [line for each in candidates[1:] for line in _differences(each, candidates[0])]
    problems += [
        problem(each.training.directory / LOGITS, "file", "must be there (trained by an older version?)", "nothing")
        for each in candidates
        if not (each.training.directory / LOGITS).exists()
    ]
    if problems:
        raise InvalidInput(problems)
    return sorted(candidates, key=lambda each: each.training.merit, reverse=True)


def load_splits(candidates: Sequence[Candidate], recipe: Recipe) -> Splits:
    """Return the images that the candidates were trained and judged on, those to learn from as this recipe has them.

    Raises InvalidInput where the images are not those that the candidates' figures are of, in their order.
    """
    data = candidates[0].training.result["data"]
    faces = load_faces(data["source"])
    check_fingerprint(faces, {"data": data})
    splits = split_for(faces, recipe)
    rule = f"must be of the images of {data['source']}, in their order: accuracy {{}}"
    problems = []
    for each in candidates:
        said, logits = each.training.result["prediction"]["val_accuracy"][PLAIN], each.predicted(PLAIN)
        right = logits.argmax(1) == splits.validation.labels if len(logits) == len(splits.validation) else np.zeros(1)
        if not np.isclose(right.mean(), said):
            file = each.training.directory / LOGITS
            problems.append(problem(file, "validation", rule.format(said), float(right.mean())))
    if problems:
        raise InvalidInput(problems)
    return splits


def _differences(candidate: Candidate, first: Candidate) -> list[str]:
    """Return what keeps a candidate from being compared with the first one."""

    def compared(each: Candidate) -> dict[str, Any]:
        kept = {key: getattr(each.recipe, key) for key in JUDGED_BY}
        return {"fingerprint": each.training.result["data"]["fingerprint"], **asdict(each.form), **kept}

    ours, theirs = compared(first), compared(candidate)
    rule = f"must be {{!r}}, as in {first.name}"
    return [problem(candidate.name, k, rule.format(ours[k]), theirs[k]) for k in ours if ours[k] != theirs[k]]
