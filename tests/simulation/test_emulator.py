"""The emulator against curves whose formula is known."""

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import logit
from scipy.stats import spearmanr

from fer_search.emulator import fit_emulator, recorded_space
from fer_search.errors import InvalidInput
from fer_search.journal import Journal
from fer_search.recorded_curves import RecordedCurves

HERE = Path("curves.parquet")


def test_configurations_that_were_not_recorded_end_where_the_formula_says(make_family, noisy_emulator):
    family = make_family()
    new = family.points(300, seed=9)
    predicted = noisy_emulator.curves(new)
    truth = np.array([family.logits(point) for point in new])
    assert spearmanr(predicted[:, -1], family.finals(new)).statistic > 0.97
    assert np.sqrt(np.mean((logit(predicted) - truth) ** 2)) < 0.15 * truth[:, -1].std()


def test_the_quality_it_states_is_that_on_configurations_it_never_saw(make_family, noisy_emulator):
    family = make_family()
    new = family.points(300, seed=9)
    rank_correlation = spearmanr(noisy_emulator.curves(new)[:, -1], family.finals(new)).statistic
    assert noisy_emulator.quality.rank_correlation == pytest.approx(rank_correlation, abs=0.05)


def test_curves_that_have_nothing_to_do_with_the_configuration_have_no_quality(make_family, changed):
    def shuffle(values):
        values[:] = np.random.default_rng(5).permutation(values)

    emulator = fit_emulator(changed(make_family().recorded(20), shuffle), source=HERE)
    assert emulator.quality.r2 < 0.2


@pytest.mark.parametrize(("noise", "count"), [(0.03, 60), (0.1, 30)])
def test_draws_are_as_noisy_as_what_was_recorded(make_family, noise, count):
    emulator = fit_emulator(make_family(noise=noise).recorded(count), source=HERE)
    rng = np.random.default_rng(0)
    points = make_family().points(300, seed=4)
    drawn = np.array([logit(emulator.noisy_curve(point, rng)[0]) for point in points])
    assert (drawn - logit(emulator.curves(points))).std() == pytest.approx(noise, rel=0.2)


def test_a_search_for_a_front_is_replayed_for_the_metric_alone(make_family):
    recorded = make_family().recorded(20, cost="flops")
    assert recorded_space(recorded, source=HERE) == recorded_space(make_family().recorded(20), source=HERE)


def test_a_draw_names_its_noise_free_end(noisy_emulator, make_family):
    point = make_family().points(1)[0]
    _, final = noisy_emulator.noisy_curve(point, np.random.default_rng(0))
    assert final == pytest.approx(noisy_emulator.curves([point])[0, -1], rel=1e-12)


def test_regret_is_0_at_the_best_of_random_configurations_and_1_at_their_median(make_family, clear_emulator):
    finals = make_family(crossing=False).finals(make_family().points(5000, seed=8))
    assert clear_emulator.regret(np.median(finals)) == pytest.approx(1, abs=0.05)
    assert clear_emulator.regret(finals.max()) == pytest.approx(0, abs=0.02)
    assert clear_emulator.regret(1.0) == 0


def test_stopped_curves_go_on_in_parallel_to_the_others(make_family, changed):
    whole = make_family(crossing=False).recorded(30)  # where all curves are parallel, that is the truth

    def stop(values):
        values[:10, 3:] = np.nan
        values[10] = np.nan

    cut = changed(whole, stop, stopped=range(11))
    emulator = fit_emulator(cut, source=HERE)
    quality = emulator.quality
    assert (quality.num_curves, quality.num_continued, quality.num_left_out) == (29, 10, 1)
    new = make_family().points(100, seed=2)
    truth = np.array([make_family(crossing=False).logits(point) for point in new])
    np.testing.assert_allclose(logit(emulator.curves(new)), truth, atol=0.1)


def test_where_trainings_diverged_the_emulator_expects_the_worst(make_family, changed):
    recorded = make_family().recorded(40)
    fast = [row for row, point in enumerate(recorded.points) if point["max_lr"] > 0.02]

    def diverge(values):
        values[fast, 1:] = np.nan

    emulator = fit_emulator(changed(recorded, diverge), source=HERE)
    lowest = np.delete(recorded.curves["onecycle"]["val_accuracy"], fast, axis=0)[:, -1].min()
    point = {"max_lr": 0.06, "dropout": 0.2, "optimizer": "adamw"}
    assert emulator.curves([point])[0, -1] == pytest.approx(lowest, abs=0.05)
    assert emulator.quality.num_curves == 40


def test_a_search_becomes_recorded_curves(tmp_path, make_family):
    points = make_family().points(5)
    journal = Journal(tmp_path / "journal.jsonl")
    for number, point in enumerate(points):
        journal.trial_started(number, {}, point=point)
        for epoch in range(1, [9, 3, 2, 1, 0][number] + 1):
            journal.epoch_ended(number, epoch, {"val_accuracy": 0.1 * number + 0.01 * epoch, "val_loss": 1.0})
    journal.trial_ended(0, "COMPLETE")
    journal.trial_ended(1, "PRUNED")
    journal.trial_ended(2, "FAIL", "diverged: train_loss is nan")
    journal.trial_ended(3, "FAIL", "the disk is on fire")
    found = RecordedCurves.of_trials(
        list(journal.trials.values()), table={}, metric="val_accuracy", num_epochs=9, data="faces"
    )
    values = found.curves["search"]["val_accuracy"]
    np.testing.assert_allclose(values[0], 0.01 * np.arange(1, 10))
    assert np.isfinite(values).sum(axis=1).tolist() == [9, 3, 2, 0, 0]
    assert list(found.stopped) == [1, 3, 4]
    assert found.points == points
    found.write(tmp_path / "curves.parquet")
    again = RecordedCurves.read(tmp_path / "curves.parquet")
    assert again.stopped == [1, 3, 4]
    np.testing.assert_array_equal(again.curves["search"]["val_accuracy"], values)


@pytest.mark.parametrize(
    ("change_values", "message"),
    [
        (lambda values: values.__setitem__(0, 1.5), "val_accuracy: must be from 0 to 1, got 1.5"),
        (lambda values: values.__setitem__(np.s_[7:, 8], np.nan), "curves: must be at least 8 to the last epoch"),
        (lambda values: values.__setitem__(np.s_[:, 8], 0.5), "val_accuracy: must depend on the configuration"),
    ],
)
def test_values_that_are_no_curves_to_learn_from_are_refused(make_family, changed, change_values, message):
    with pytest.raises(InvalidInput, match=message):
        fit_emulator(changed(make_family().recorded(12), change_values), source=HERE)


def test_a_file_that_contradicts_itself_is_refused_with_all_problems(make_family):
    recorded = make_family().recorded(12)
    wrong = replace(
        recorded,
        table={**recorded.table, "base": {"epochs": 12}},
        points=[{"max_lr": 0.1}, *recorded.points[1:]],
    )
    with pytest.raises(InvalidInput) as caught:
        fit_emulator(wrong, source=HERE)
    assert caught.value.problems == (
        "curves.parquet: epochs: must be the 12 of the space, and at least 3, got 9",
        "curves.parquet: points[0]: must have a value for each dimension that applies, got {'max_lr': 0.1}",
    )
    with pytest.raises(InvalidInput, match="schedule: must be one of the recorded: onecycle, got 'annealed'"):
        recorded_space(recorded, source=HERE, schedule="annealed")
    with pytest.raises(InvalidInput, match=r"search\.metric: must be one of val_accuracy, got 'val_loss'"):
        recorded_space(make_family().recorded(12, metric="val_loss"), source=HERE)
