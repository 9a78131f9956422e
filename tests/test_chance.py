"""Trials that have learned nothing."""

import numpy as np
import pytest
from scipy.stats import binomtest

from fer_search.chance import ChanceLevel
from fer_search.journal import TrialRecord

LABELS = np.repeat([0, 1, 2], [10, 60, 30])


def trial(*accuracies, **metrics):
    epochs = [{"val_accuracy": accuracy, **metrics} for accuracy in accuracies]
    return TrialRecord(0, {"pct_start": 0.3, "epochs": 9}, 0.0, epochs=epochs)


def test_the_level_is_the_upper_end_of_wilsons_interval_of_the_most_frequent_label():
    expected = binomtest(60, 100).proportion_ci(method="wilson").high
    assert ChanceLevel.of(LABELS).accuracy == pytest.approx(expected)


def test_a_trial_is_judged_once_an_epoch_has_followed_the_peak():
    level = ChanceLevel(0.5)  # the peak is after 2.7 of 9 epochs
    assert level.verdict(trial(0.4, 0.4, 0.4)) is None
    message = "no better than chance (50.0%) after the learning rate's peak: 40.0%"
    assert level.verdict(trial(0.4, 0.4, 0.4, 0.4)) == message
    assert level.verdict(trial(0.4, 0.4, 0.4, 0.51)) is None


def test_averaged_weights_above_chance_save_a_trial():
    level = ChanceLevel(0.5)
    assert level.verdict(trial(0.4, 0.4, 0.4, 0.4, val_accuracy_ema=0.45)) is not None
    assert level.verdict(trial(0.4, 0.4, 0.4, 0.4, val_accuracy_ema=0.6)) is None
