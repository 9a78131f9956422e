"""Races played through without Ray, against hand-made scores and statsmodels-free textbook figures."""

import numpy as np
import pytest
from scipy import stats

from fer_search.errors import InvalidInput
from fer_search.journal import FILE_NAME, Journal, TrialRecord
from fer_search.tuning.race import RaceState, entrants, standings


def new_race(directory, means, *, min_seeds=3, max_seeds=6):
    parameters = {number: {"x": number, "seed": 0} for number in means}
    return RaceState(
        parameters, Journal(directory / FILE_NAME), metric="score", horizon=2, seed=0,
        min_seeds=min_seeds, max_seeds=max_seeds,
    )  # fmt: skip


def play(race, means, *, noise=0.01, broken=(), trainings=10_000):
    """Train what the race asks for, each with noise of its seed that all entrants share and some of its own."""
    while not race.finished and trainings > 0:
        trial = race.next_trial()
        entrant, seed = trial.point["trial"], trial.parameters["seed"]
        if entrant in broken:
            race.fail(trial.number, "diverged")
            continue
        own = np.random.default_rng([entrant, seed]).normal(0, noise)
        shared = np.random.default_rng(seed).normal(0, 0.05)
        assert race.report(trial.number, 1, {"score": 0.0})
        assert not race.report(trial.number, 2, {"score": means[entrant] + shared + own})
        trainings -= 1
    return race.standings()


def test_a_clear_winner_is_found_with_the_fewest_seeds_and_the_weak_get_no_more(tmp_path):
    means = {4: 0.8, 7: 0.6, 0: 0.5}
    race = new_race(tmp_path, means)
    found = play(race, means)
    assert [standing.trial for standing in found] == [4, 7, 0]
    assert [len(standing.scores) for standing in found] == [3, 3, 3]
    assert [standing.in_race for standing in found] == [True, False, False]


def test_equals_race_to_the_last_seed_and_tie(tmp_path):
    means = {4: 0.8, 7: 0.8, 0: 0.5}
    found = play(new_race(tmp_path, means), means)
    assert sorted(standing.trial for standing in found if standing.in_race) == [4, 7]
    assert {standing.trial: len(standing.scores) for standing in found} == {4: 6, 7: 6, 0: 3}


def test_all_entrants_of_a_round_share_a_seed_that_the_search_did_not_use(tmp_path):
    means = {4: 0.8, 7: 0.8}
    race = new_race(tmp_path, means)
    play(race, means)
    seeds = {entrant: [] for entrant in means}
    for record in race.journal.trials.values():
        seeds[record.point["trial"]].append(record.parameters["seed"])
    assert seeds[4] == seeds[7]
    assert len(set(seeds[4])) == 6
    assert 0 not in seeds[4]


def test_an_entrant_of_which_a_seed_fails_is_out(tmp_path):
    means = {4: 0.8, 7: 0.9, 0: 0.5}
    found = play(new_race(tmp_path, means), means, broken={7})
    assert [(standing.trial, standing.failed) for standing in found] == [(4, False), (0, False), (7, True)]
    assert not found[-1].in_race


@pytest.mark.parametrize("trainings", range(1, 14))
def test_a_race_that_is_interrupted_goes_on_as_if_it_had_not_been(tmp_path, trainings):
    means = {4: 0.8, 7: 0.795, 0: 0.5}
    (tmp_path / "whole").mkdir()
    whole = play(new_race(tmp_path / "whole", means), means)
    play(new_race(tmp_path, means), means, trainings=trainings)
    interrupted = new_race(tmp_path, means)
    interrupted.next_trial()  # and a kill before it reports
    assert play(new_race(tmp_path, means), means) == whole


def test_workers_wait_for_the_round_to_end(tmp_path):
    race = new_race(tmp_path, {4: 0.8, 7: 0.7})
    assert {race.next_trial().point["trial"], race.next_trial().point["trial"]} == {4, 7}
    assert race.next_trial() is None
    assert not race.finished


def test_the_p_value_of_two_entrants_is_that_of_the_paired_t_test():
    rng = np.random.default_rng(0)
    one, other = rng.normal(0.70, 0.01, 6), rng.normal(0.69, 0.01, 6)
    found = standings({1: one, 2: other}, failed=set())
    assert found[1].p_value == pytest.approx(stats.ttest_rel(one, other, alternative="greater").pvalue)
    assert found[1].behind == pytest.approx(one.mean() - other.mean())


def test_with_more_entrants_the_noise_is_that_of_a_two_way_analysis_of_variance():
    table = np.array([[0.70, 0.72, 0.69], [0.68, 0.71, 0.66], [0.69, 0.70, 0.68], [0.60, 0.63, 0.61]])
    residuals = [table[i, j] - table[i].mean() - table[:, j].mean() + table.mean() for i in range(4) for j in range(3)]
    error = np.sqrt(sum(r * r for r in residuals) / 6 * 2 / 3)
    found = {standing.trial: standing for standing in standings(dict(enumerate(table)), failed=set())}
    for number in (1, 2, 3):
        behind = table[0].mean() - table[number].mean()
        assert found[number].p_value == pytest.approx(stats.t.sf(behind / error, 6))


def test_the_interval_of_a_mean_is_scipys_bca_bootstrap():
    values = np.array([0.70, 0.72, 0.69, 0.71, 0.705])
    (standing,) = standings({3: values}, failed=set())
    expected = stats.bootstrap((values,), np.mean, method="BCa", rng=np.random.default_rng(1)).confidence_interval
    assert standing.interval == pytest.approx((expected.low, expected.high), abs=2e-3)
    assert standings({3: values[:2]}, failed=set())[0].interval is None


def test_the_best_and_the_first_trial_enter():
    def trial(number, state, score):
        return TrialRecord(number, {"x": number}, 0.0, state=state, epochs=[{"score": score}])

    trials = [
        trial(0, "PRUNED", 0.1), trial(1, "COMPLETE", 0.5), trial(2, "COMPLETE", 0.7), trial(3, "PRUNED", 0.9),
        trial(4, "COMPLETE", 0.6),
    ]  # fmt: skip
    assert list(entrants(trials, metric="score", top=2)) == [2, 4, 0]
    with pytest.raises(InvalidInput, match="must hold one that reached the last epoch"):
        entrants(trials[:1], metric="score", top=2)


def test_of_a_search_for_a_front_its_front_enters_as_far_apart_as_there_is_room():
    """On the front are 3, 1, 4 and 2, from the cheapest; 5 costs more than 4 and is worse; 6 did not come so far."""
    scores = {0: 0.1, 1: 0.5, 2: 0.7, 3: 0.4, 4: 0.6, 5: 0.59, 6: 0.9}
    costs = {0: 900, 1: 110, 2: 800, 3: 100, 4: 300, 5: 310, 6: 10}
    trials = [
        TrialRecord(
            number, {"x": number}, 0.0, state="COMPLETE" if number < 6 else "PRUNED", epochs=[{"score": score}],
            cost=costs[number],
        )
        for number, score in scores.items()
    ]  # fmt: skip
    assert list(entrants(trials, metric="score", top=9, front=True)) == [2, 3, 4, 1, 0]
    assert list(entrants(trials, metric="score", top=3, front=True)) == [2, 3, 4, 0]
