"""The steps of the FER2013 campaign, as command lines: what is trained, searched and combined, by budget."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import tomli_w

from fer_search.files import read_toml
from fer_search.recipe import parse_overrides

SPACE = Path(__file__).resolve().parents[2] / "search_spaces/full.toml"
SEARCH = "search"
NUM_RANKED = 8
"""Configurations that are trained long, to see whether the search ranked them as that does."""


@dataclass(frozen=True)
class Budget:
    """How much is done; lengths are in epochs."""

    base: tuple[str, ...]  # overrides of every recipe
    short: int  # the default recipe as it is
    long: int
    horizon: int  # of the search
    first_rung: int | None  # None: every trial goes to the horizon
    trials: int
    race: tuple[int, int]  # entrants, seeds at most
    seeds: int  # of the winner
    image_sizes: tuple[int, ...]
    lengths: tuple[int, ...]  # of the default recipe, for its learning curve
    fractions: tuple[float, ...]  # of the fit images, for the same
    folds: int  # of the search for label noise, each of which has an image of every class


BUDGETS = {
    # Rungs begin at a third of the horizon, later than they would by default: so that many trials come to its end, over
    # the whole range of which the long trainings can be chosen.
    "full": Budget((), 14, 300, 30, 10, 90, (5, 6), 3, (64, 96, 112), (30, 100), (0.1, 0.3), 5),
    "small": Budget(
        ("image_size=32", "stem_stride=2", "accumulation=1", "fit_fraction=0.02", "validation_fraction=0.02"),
        2, 5, 2, None, 8, (2, 3), 3, (48, 64), (3,), (0.005, 0.01), 3,
    ),
}  # fmt: skip


@dataclass(frozen=True)
class Step:
    """A command of the campaign: its words after `fer-search`, and the file in `runs` that is there when it is done.

    Without such a file, the campaign's own log says so. A step that `may_decline` ends with a code other than 0 where
    what it makes is not worth having; those that need it are then left out. `output` gets what it prints.
    """

    name: str
    words: tuple[str, ...]
    done: str | None = None
    may_decline: bool = False
    needs: str | None = None  # the name of a step that must not have declined
    output: str | None = None


def first_steps(budget: Budget, *, data: str, runs: Path) -> list[Step]:
    """Return the steps up to the end of the race, after which it is known which trials are to be trained long."""
    common = ("--data", data, "--runs", str(runs), "--quiet")
    trainings = {
        "default_short": [f"epochs={budget.short}"],
        "default_long": [f"epochs={budget.long}"],
        **{f"length_{length}": [f"epochs={length}"] for length in budget.lengths},
        **{
            f"fraction_{fraction}": [f"epochs={budget.long}", f"fit_fraction={fraction}"]
            for fraction in budget.fractions
        },
    }
    entrants, seeds = budget.race
    return [
        *(_training(name, [*_without(budget.base, own), *own], common) for name, own in trainings.items()),
        _export("default_long", runs),
        Step("search", ("search", str(runs / "space.toml"), "--name", SEARCH, *common)),
        Step("race", ("race", SEARCH, "--top", str(entrants), "--seeds", str(seeds), "--runs", str(runs), "--quiet")),
    ]


def later_steps(budget: Budget, ranked: Sequence[int | str], *, data: str, runs: Path) -> list[Step]:
    """Return the steps after the race: the winner and the trials `ranked` trained long, and what is made of them."""
    common = ("--data", data, "--runs", str(runs), "--quiet")
    own, long = ("--runs", str(runs)), ("--epochs", str(budget.long))
    winner = ("--recipe", str(runs / SEARCH / "bundle/winner.toml"))
    soft = ("--soft-labels", str(runs / "noise/soft_labels.parquet"), "soft_label_weight=0.5")
    distilled = ("--soft-labels", str(runs / "ensemble_labels.parquet"), "soft_label_weight=0.5")
    variants = {
        "scratch": ["pretrained=false"],
        **{f"image_{size}": [f"image_size={size}"] for size in budget.image_sizes},
        "raw": ["ema_decay=0"],
        "no_sam": ["sam_rho=0"],
        "standard": ["drop_test_duplicates=false"],
    }
    steps = [
        Step("retrain", ("retrain", SEARCH, "--seeds", str(budget.seeds), *long, *own, "--quiet")),
        *(
            Step(f"retrain_{trial}", ("retrain", SEARCH, "--trial", str(trial), *long, *own, "--quiet"))
            for trial in ranked
        ),
        _export(SEARCH, runs),
        *(_training(name, [*winner, *changes], common) for name, changes in variants.items()),
    ]
    others = [word for name in ("scratch", "raw", "no_sam") for word in ("--with", name)]
    for kind in ("soup", "ensemble"):
        bundle = f"{SEARCH}/bundle_{kind}"
        words = ("export", SEARCH, f"--{kind}", *(others if kind == "ensemble" else ()), *own)
        steps.append(Step(kind, words, done=f"{bundle}/manifest.json", may_decline=True))
        against = ("--against", str(runs / "default_long/bundle"), "--split", "public", "--json")
        evaluate = ("evaluate", str(runs / bundle), *against, *own)
        steps.append(Step(f"evaluate_{kind}", evaluate, needs=kind, output=f"evaluate_{kind}.json"))
    output = ("--output", str(runs / "ensemble_labels.parquet"))
    folds = ("--folds", str(budget.folds))
    return [
        *steps,
        Step("noise", ("label-noise", "--name", "noise", *folds, *winner, f"epochs={budget.horizon}", *common)),
        _training("soft_labels", [*winner, *soft], common),
        Step(
            "distill",
            ("distill", str(runs / SEARCH / "bundle_ensemble"), *output),
            done="ensemble_labels.parquet",
            needs="ensemble",
        ),
        _training("distilled", [*winner, *distilled], common, needs="ensemble"),
    ]


def write_space(budget: Budget, path: Path) -> None:
    """Write the campaign's space file: the shipped full space at the budget's horizon, number of trials and rungs."""
    table = read_toml(SPACE)
    table["search"]["num_trials"] = budget.trials
    table["search"] |= {"scheduler": "none"} if budget.first_rung is None else {"first_rung": budget.first_rung}
    table["base"] |= {**parse_overrides(list(budget.base)), "epochs": budget.horizon}
    path.write_text(tomli_w.dumps(table), encoding="utf-8")


def spread(leaderboard: Sequence[int], *, without: int, count: int) -> list[int]:
    """Return `count` of the trials that reached the horizon, best first, evenly over the leaderboard but the winner.

    The best alone would say little about ranks: their values differ by less than their noise.
    """
    others = [trial for trial in leaderboard if trial != without]
    count = min(count, len(others))
    return [others[round(place * (len(others) - 1) / max(1, count - 1))] for place in range(count)]


def _training(name: str, words: Sequence[str], common: Sequence[str], *, needs: str | None = None) -> Step:
    return Step(name, ("train", "--name", name, *words, *common), done=f"{name}/result.json", needs=needs)


def _export(name: str, runs: Path) -> Step:
    return Step(f"export_{name}", ("export", name, "--runs", str(runs)), done=f"{name}/bundle/manifest.json")


def _without(overrides: Sequence[str], own: Sequence[str]) -> list[str]:
    """Return the overrides that `own` ones do not repeat."""
    keys: dict[str, Any] = parse_overrides(list(own))
    return [each for each in overrides if each.partition("=")[0] not in keys]
