"""Searches for a front that is known: each width has a best x, and a wider network is better and costs more."""

import math
from pathlib import Path

import numpy as np
import optuna
import pytest
from optuna.distributions import FloatDistribution
from optuna.trial import TrialState, create_trial

from fer_search.journal import FILE_NAME, Journal
from fer_search.tuning.sampler import COST, CurveSampler
from fer_search.tuning.space_file import read_space
from fer_search.tuning.state import SearchState

HORIZON = 9
MOST = 64
DEFAULTS = {"epochs": HORIZON, "x": 0.5, "width": 8, "kind": "plain"}


def space_for(num_trials, **search):
    table = {
        "search": {"metric": "score", "num_trials": num_trials, "first_rung": 1, **search},
        "space": {
            "x": {"low": 0.0, "high": 1.0},
            "width": {"low": 1, "high": MOST, "log": True},
            "kind": {"choices": ["plain", "odd"]},
        },
    }
    return read_space(
        table,
        source=Path("s.toml"),
        defaults=DEFAULTS,
        check=lambda values: [],
        metrics=["score"],
        costs=["size"],
        cost_fields=["width"],
    )


def best(width):
    return 0.9 - 0.5 / (1 + math.log2(width))


def score(parameters, epoch):
    """The best x moves from 0.1 for the narrowest network to 0.9 for the widest; wide ones take longer to learn."""
    share = math.log(parameters["width"], MOST)
    final = best(parameters["width"]) - (parameters["x"] - 0.1 - 0.8 * share) ** 2 - 0.1 * (parameters["kind"] == "odd")
    return final - 0.3 * math.exp(-epoch / (1 + share))


def size(parameters):
    return 1000.0 * parameters["width"]


def played(directory, space, past=()):
    """Run a search with one worker and return its trials."""
    directory.mkdir()
    measure = None if space.cost is None else size
    state = SearchState(space, Journal(directory / FILE_NAME), measure=measure, past=past)
    while not state.finished:
        trial = state.next_trial()
        epoch = max(1, len(trial.epochs))
        while state.report(trial.number, epoch, {"score": score(trial.parameters, epoch)}):
            epoch += 1
    state.close()
    return list(state.journal.trials.values())


def area(trials):
    """Return the area under the best final score at each width, on a log scale, as a share of the true front's."""
    widths = np.exp(np.linspace(0, math.log(MOST), 400))
    complete = [(trial.parameters["width"], trial.epochs[-1]["score"]) for trial in trials if trial.state == "COMPLETE"]
    found = [max([value for width, value in complete if width <= most], default=0.0) for most in widths]
    return sum(max(0.0, value) for value in found) / sum(best(int(most)) for most in widths)


@pytest.mark.parametrize("scheduler", ["promotion", "stopping"])
def test_a_search_for_the_front_covers_more_of_it_than_one_for_the_metric(tmp_path, scheduler):
    shares = {
        (cost, seed): area(
            played(
                tmp_path / f"{cost}{seed}",
                space_for(40, seed=seed, scheduler=scheduler, **({"cost": cost} if cost else {})),
            )
        )
        for cost in ("size", None)
        for seed in range(5)
    }
    gains = [shares["size", seed] - shares[None, seed] for seed in range(5)]
    assert min(gains) > 0.05, shares
    assert np.mean([shares["size", seed] for seed in range(5)]) > 0.8, shares


def test_what_an_earlier_search_found_of_the_front_is_known_from_the_beginning(tmp_path):
    first = played(tmp_path / "first", space_for(30, cost="size"))
    alone = area(played(tmp_path / "alone", space_for(9, seed=1, cost="size")))
    assert area(played(tmp_path / "second", space_for(9, seed=1, cost="size"), past=first)) > alone


def test_random_points_are_promoted_along_the_front_too(tmp_path):
    trials = {
        cost: played(tmp_path / str(cost), space_for(60, searcher="random", **({"cost": cost} if cost else {})))
        for cost in ("size", None)
    }
    assert [trial.parameters for trial in trials["size"]] == [trial.parameters for trial in trials[None]]
    assert area(trials["size"]) > area(trials[None]) + 0.1


def test_a_network_that_an_earlier_trial_had_is_not_measured_again(tmp_path):
    measured = []

    def measure(parameters):
        measured.append(parameters["width"])
        return 100.0 + len(measured)  # as a clock would: never the same

    state = SearchState(space_for(40, searcher="random", cost="size"), Journal(tmp_path / FILE_NAME), measure=measure)
    costs = {}
    for _ in range(40):
        trial = state.next_trial()
        assert costs.setdefault(trial.parameters["width"], trial.cost) == trial.cost
        state.fail(trial.number, "broken")
    assert len(measured) == len(set(measured)) == len(costs) < 40


def study_with(num_trials, *, costly):
    """Return a study of two parameters of which `costly` decides the cost; the best y is 0.3, and more z is better."""
    line = {"y": FloatDistribution(0.0, 1.0), "z": FloatDistribution(0.0, 1.0)}
    sampler = CurveSampler(seed=0, levels=(1, 3, 9), cost_parameters=costly)
    study, rng = optuna.create_study(direction="maximize", sampler=sampler), np.random.default_rng(1)
    for _ in range(num_trials):
        point = {"y": float(rng.random()), "z": float(rng.random())}
        last = int(rng.choice([1, 3, 9]))
        values = {e: point["z"] - (point["y"] - 0.3) ** 2 - 0.2 * math.exp(-e) for e in range(1, last + 1)}
        complete = last == 9
        study.add_trial(
            create_trial(
                state=TrialState.COMPLETE if complete else TrialState.PRUNED,
                value=values[9] if complete else None,
                params=point,
                distributions=line,
                intermediate_values=values,
                user_attrs={COST: math.exp(3 * point["z"])},
            )
        )
    return study, line


def test_trials_that_run_at_once_are_proposed_all_along_the_front():
    spread = {}
    for costly in ((), ("z",)):
        study, line = study_with(40, costly=costly)
        proposals = []
        for _ in range(16):  # none of them reports
            trial = study.ask(line)
            trial.set_user_attr(COST, math.exp(3 * trial.params["z"]))
            if trial.number % 4:
                proposals.append(trial.params)
        assert np.median([abs(each["y"] - 0.3) for each in proposals]) < 0.2
        spread[costly] = sorted(each["z"] for each in proposals)
    assert min(spread[()]) > 0.7
    assert spread["z",][0] < 0.3
    assert spread["z",][-1] > 0.9
