"""Searches in virtual time, judged by their journals."""

import numpy as np
import pytest
from scipy import stats

from fer_search.emulator import fit_emulator
from fer_search.errors import InvalidInput
from fer_search.journal import FILE_NAME, read_events, read_journal
from fer_search.simulate import BASELINES, Outcome, Setting, replay, simulate

HORIZON = 9


def test_one_worker_without_a_scheduler_trains_one_configuration_after_the_other_to_the_end(tmp_path, noisy_emulator):
    found = replay(
        noisy_emulator, Setting.baseline("random/none"), seed=0, num_workers=1, budgets=[1, 4], directory=tmp_path
    )
    trials = read_journal(tmp_path / FILE_NAME)
    assert [len(trial.epochs) for trial in trials] == [HORIZON] * 4
    assert (found.num_trials, found.num_complete) == (4, 4)
    assert trials[0].point == noisy_emulator.space.first_point
    # What the leaderboard shows is the best as it was reported; what counts is how good that is without noise.
    for budget, regret in zip((1, 4), found.regrets, strict=True):
        best = max(trials[:budget], key=lambda trial: trial.epochs[-1]["val_accuracy"])
        clean = noisy_emulator.curves([best.point])[0, -1]
        expected = (noisy_emulator.best - clean) / (noisy_emulator.best - noisy_emulator.median)
        assert regret == pytest.approx(max(0, expected))


@pytest.mark.parametrize("name", BASELINES)
def test_exactly_the_budget_is_spent_by_no_more_trials_at_once_than_there_are_workers(tmp_path, noisy_emulator, name):
    replay(noisy_emulator, Setting.baseline(name), seed=1, num_workers=5, budgets=[2, 6], directory=tmp_path)
    events = [event for event, _ in read_events(tmp_path / FILE_NAME)]
    assert sum(event["event"] == "epoch_ended" for event in events) == 6 * HORIZON
    running, most = set(), 0
    for event in events:
        if event["event"] in ("trial_started", "trial_promoted"):
            running.add(event["trial"])
        elif event["event"] in ("trial_paused", "trial_ended"):
            running.discard(event["trial"])
        most = max(most, len(running))
    assert most == 5
    if "none" not in name:
        stopped = {len(trial.epochs) for trial in read_journal(tmp_path / FILE_NAME) if trial.state == "PRUNED"}
        assert stopped <= {1, 3}


def test_a_trial_goes_on_with_the_curve_that_it_began(tmp_path, noisy_emulator):
    setting = Setting("random", "promotion", first_rung=1)
    replay(noisy_emulator, setting, seed=2, num_workers=3, budgets=[6], directory=tmp_path)
    promoted = [trial for trial in read_journal(tmp_path / FILE_NAME) if len(trial.epochs) > 3]
    assert promoted
    for trial in promoted:
        drawn, _ = noisy_emulator.noisy_curve(trial.point, np.random.default_rng([2, trial.number]))
        seen = [metrics["val_accuracy"] for metrics in trial.epochs]
        np.testing.assert_array_equal(seen, drawn[: len(seen)])


def test_where_the_first_epoch_tells_the_end_promotion_beats_training_everything(clear_emulator):
    settings = {"promotion": Setting("random", "promotion", first_rung=1), "none": Setting("random", "none")}
    found = simulate([clear_emulator], settings, num_seeds=10, num_workers=4, budgets=[10], num_jobs=1)
    assert found["promotion"].num_trials > 2 * found["none"].num_trials
    assert found["promotion"].mean[0] < found["none"].mean[0]
    assert found["promotion"].p_values(found["none"])[0] < 0.05


def test_figures_do_not_depend_on_how_many_processes_compute_them(noisy_emulator, clear_emulator):
    settings = {name: Setting.baseline(name) for name in ("curves/promotion", "random/stopping")}
    one, two = (
        simulate(
            [noisy_emulator, clear_emulator], settings, num_seeds=3, num_workers=4, budgets=[2, 4], num_jobs=num_jobs
        )
        for num_jobs in (1, 2)
    )
    for name in settings:
        np.testing.assert_array_equal(one[name].regrets, two[name].regrets)
        assert one[name].regrets.shape == (3, 2)
        assert one[name].num_trials == two[name].num_trials


def test_outcomes_are_means_over_emulators(noisy_emulator, clear_emulator):
    def run(*emulators):
        settings = {"a": Setting.baseline("random/promotion")}
        return simulate(emulators, settings, num_seeds=2, num_workers=4, budgets=[3], num_jobs=1)["a"].regrets

    both = run(noisy_emulator, clear_emulator)
    np.testing.assert_allclose(both, (run(noisy_emulator) + run(clear_emulator)) / 2)


def test_intervals_and_p_values_are_the_textbooks():
    rng = np.random.default_rng(0)
    sample = rng.normal(0.3, 0.1, size=(40, 1))
    outcome = Outcome(sample, 1.0, 1.0)
    low, high = outcome.intervals[0]
    expected = stats.t.interval(0.95, 39, sample.mean(), stats.sem(sample[:, 0]))
    np.testing.assert_allclose((low, high), expected, atol=0.005)
    other = Outcome(sample + rng.normal(0.02, 0.03, size=(40, 1)), 1.0, 1.0)
    assert outcome.p_values(other)[0] == stats.wilcoxon(sample[:, 0], other.regrets[:, 0]).pvalue
    assert outcome.p_values(outcome) == [1.0]


def test_a_setting_that_no_search_can_have_is_named(make_family):
    space = fit_emulator(make_family().recorded(12), source="family").space
    assert Setting("grid", "asha", eta=1, first_rung=9).problems(space) == [
        "command line: searcher: must be one of curves, tpe, random, got 'grid'",
        "command line: scheduler: must be one of promotion, stopping, none, got 'asha'",
        "command line: eta: must be a whole number from 2, got 1",
        "command line: first_rung: must be below the horizon, 9 epochs, got 9",
    ]
    assert Setting(scheduler="none", eta=4).problems(space) == [
        "command line: eta: must not be given, since it has no effect while scheduler is none, got 4"
    ]
    assert Setting(first_rung=1).problems(space) == []
    with pytest.raises(InvalidInput, match="baseline: must be one of random/none"):
        Setting.baseline("random")
