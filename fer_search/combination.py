"""Several finished trainings as one bundle: a soup, the mean of their weights, or an ensemble, that of their answers.

Both are chosen on search-validation, and compared there with the best training alone.
"""

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any, Literal, NoReturn

import numpy as np
from safetensors.torch import save_file

from fer_search.bundle import check_absent, write_bundle
from fer_search.candidates import PLAIN, Candidate, load_splits, read_candidates
from fer_search.data.splits import Splits
from fer_search.errors import InvalidInput, NotBetter, problem
from fer_search.training.calibration import log_probabilities
from fer_search.training.ensemble import Member, load_members
from fer_search.training.ensemble_selection import disagreement, select_ensemble
from fer_search.training.measurement import measure_training
from fer_search.training.paired import compare
from fer_search.training.run import WEIGHTS, load_model
from fer_search.training.soup import greedy_soup, origin
from fer_search.training.trainer import choose_device

Kind = Literal["soup", "ensemble"]


@dataclass(frozen=True)
class Combination:
    """What is to be exported, and how it was chosen."""

    members: list[Member]
    trail: list[dict[str, Any]]  # what was tried or added, step by step
    parts: list[dict[str, Any]]  # the candidates that are in it


def export_combination(kind: Kind, names: Sequence[str], bundle: Path, *, runs: Path) -> dict[str, Any]:
    """Write the bundle of a soup or an ensemble of the trainings of these runs, and return its manifest.

    Raises InvalidInput for trainings that cannot be combined or a bundle that is there, and NotBetter, with nothing
    written, where the best training alone is not beaten on search-validation.
    """
    check_absent(bundle)
    candidates = read_candidates(runs, names)
    best = candidates[0]
    with TemporaryDirectory() as folder:
        if kind == "soup":
            group = _of_one_origin(candidates)
            splits = load_splits(candidates, group[0].recipe)
            combination = _soup(group, splits, Path(folder) / WEIGHTS)
        else:
            _check_several(candidates, "finished trainings")
            splits = load_splits(candidates, best.recipe)
            combination = _ensemble(candidates, splits)
        network = load_members(combination.members, best.form).to(choose_device())
        choice, metrics, logits = measure_training(network, splits)
        accuracy, nll = choice.val_accuracy[choice.views], choice.val_nll[choice.views]
        if not _is_better(kind, (accuracy, -nll), best.training.merit):
            _give_up(kind, best, f"accuracy {accuracy:.2%}, NLL {nll:.4f}")
        labels = splits.validation.labels
        paired = compare(
            logits["validation"][choice.views].argmax(1),
            best.predicted(best.views).argmax(1),
            labels,
            num_classes=len(best.form.classes),
        )
        selection = {
            "chosen_on": "search-validation",
            "num_candidates": len(candidates),
            "parts": combination.parts,
            "trail": combination.trail,
            "best_alone": best.described(),
            "paired": paired,
        }
        result = {"prediction": asdict(choice), "metrics": metrics, "data": best.training.result["data"]}
        return write_bundle(bundle, result, combination.members, kind=kind, selection=selection)


def _ensemble(candidates: Sequence[Candidate], splits: Splits) -> Combination:
    """Select members in one view, in which the exported network has the candidates' own answers as they are on disk."""
    labels, logits = splits.validation.labels, [each.logits(PLAIN) for each in candidates]
    temperatures = [each.temperature(PLAIN) for each in candidates]
    probabilities = np.exp([log_probabilities(*each) for each in zip(logits, temperatures, strict=True)])
    picks = select_ensemble(probabilities, labels)
    counts = Counter(pick.added for pick in picks)
    if len(counts) == 1:
        _give_up("ensemble", candidates[0], "no second member lowers the NLL")
    chosen = sorted(counts, key=lambda number: (-counts[number], number))
    differs = disagreement([logits[number].argmax(1) for number in chosen])
    members = [
        Member(candidates[n].recipe, candidates[n].training.directory / WEIGHTS, counts[n], temperatures[n])
        for n in chosen
    ]
    parts = [
        {**candidates[n].described(), "count": counts[n], "disagreement": share}
        for n, share in zip(chosen, differs, strict=True)
    ]
    trail = [
        {"added": candidates[pick.added].name, "val_accuracy": pick.accuracy, "val_nll": pick.nll} for pick in picks
    ]
    return Combination(members, trail, parts)


def _soup(group: Sequence[Candidate], splits: Splits, weights: Path) -> Combination:
    """Put the greedy soup of trainings with one origin into the file `weights`."""
    first = group[0]
    network = load_model(first.recipe, first.training.directory / WEIGHTS, first.form)
    states = [load_model(e.recipe, e.training.directory / WEIGHTS, e.form).state_dict() for e in group]
    tastes = greedy_soup(
        network, states, first.recipe, fit=splits.fit, validation=splits.validation, device=choose_device()
    )
    parts = [group[taste.added].described() for taste in tastes if taste.kept]
    if len(parts) == 1:
        _give_up("soup", first, "no mean of weights is as good")
    save_file({name: value.contiguous() for name, value in network.cpu().state_dict().items()}, weights)
    trail = [
        {
            "added": group[taste.added].name,
            "kept": taste.kept,
            "val_accuracy": taste.merit.accuracy,
            "val_nll": -taste.merit.log_likelihood,
        }
        for taste in tastes
    ]
    return Combination([Member(first.recipe, weights)], trail, parts)


def _of_one_origin(candidates: Sequence[Candidate]) -> list[Candidate]:
    """Return the candidates that began at the same weights as the best one of which there is such another."""
    groups: dict[str, list[Candidate]] = {}
    for candidate in candidates:
        groups.setdefault(repr(origin(candidate.recipe)), []).append(candidate)
    largest = next((group for group in groups.values() if len(group) > 1), [])
    what = "finished trainings with the same network and first weights (weights_seed=N in retrain, or the same seed)"
    _check_several(largest or candidates[:1], what)
    return sorted(largest, key=_plain_merit, reverse=True)


def _is_better(kind: Kind, merit: tuple[float, float], alone: tuple[float, float]) -> bool:
    """Compare accuracy and log likelihood; an ensemble, chosen by the latter, must lose nothing of the former."""
    return merit > alone if kind == "soup" else merit[0] >= alone[0] and merit[1] > alone[1]


def _plain_merit(candidate: Candidate) -> tuple[float, float]:
    prediction = candidate.training.result["prediction"]
    return prediction["val_accuracy"][PLAIN], -prediction["val_nll"][PLAIN]


def _check_several(candidates: Sequence[Candidate], what: str) -> None:
    if len(candidates) < 2:
        raise InvalidInput(problem(candidates[0].name, "candidates", f"must be at least two {what}", len(candidates)))


def _give_up(kind: Kind, best: Candidate, why: str) -> NoReturn:
    accuracy, likelihood = best.training.merit
    raise NotBetter(
        f"no {kind} is exported: {best.name} alone is not beaten on search-validation "
        f"(accuracy {accuracy:.2%}, NLL {-likelihood:.4f}; {why})"
    )
