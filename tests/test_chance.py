"""Trials that have learned nothing."""

import numpy as np
import pytest
from scipy.stats import binomtest
from sklearn.metrics import f1_score

from fer_search.chance import ChanceLevel
from fer_search.journal import TrialRecord

LABELS = np.repeat(np.arange(7), [100, 15, 110, 250, 130, 85, 180])
LEVEL = ChanceLevel.of(LABELS, 7)


def metrics(predicted):
    predicted = np.asarray(predicted)
    f1 = f1_score(LABELS, predicted, average="macro", labels=np.arange(7), zero_division=0)
    return {"val_accuracy": (predicted == LABELS).mean(), "val_macro_f1": f1}


ALWAYS_HAPPY = metrics(np.full(len(LABELS), 3))
SOME_SURPRISE = metrics(np.where(np.arange(len(LABELS)) % 7 == 0, 5, 3))


def trial(*epochs):
    return TrialRecord(0, {"pct_start": 0.3, "epochs": 9}, 0.0, epochs=list(epochs))


def test_the_level_is_the_upper_end_of_wilsons_interval_of_the_most_frequent_label():
    assert LEVEL.accuracy == pytest.approx(binomtest(250, len(LABELS)).proportion_ci(method="wilson").high)


def test_naming_one_emotion_is_at_the_level_and_naming_two_is_above_it_even_by_guessing():
    assert ALWAYS_HAPPY["val_macro_f1"] == pytest.approx(2 * 250 / (len(LABELS) + 250) / 7)
    assert ALWAYS_HAPPY["val_macro_f1"] <= LEVEL.macro_f1 < SOME_SURPRISE["val_macro_f1"]
    assert SOME_SURPRISE["val_accuracy"] < LEVEL.accuracy


def test_a_trial_is_judged_once_an_epoch_has_followed_the_peak():
    assert LEVEL.verdict(trial(*[ALWAYS_HAPPY] * 3)) is None  # the peak is after 2.7 of 9 epochs
    message = "names one class only after the learning rate's peak: accuracy 28.7%"
    assert LEVEL.verdict(trial(*[ALWAYS_HAPPY] * 4)) == message
    assert LEVEL.verdict(trial(*[ALWAYS_HAPPY] * 3, SOME_SURPRISE)) is None


def test_averaged_weights_above_chance_save_a_trial():
    assert LEVEL.verdict(trial(*[{**ALWAYS_HAPPY, "val_accuracy_ema": 0.28}] * 4)) is not None
    assert LEVEL.verdict(trial(*[{**ALWAYS_HAPPY, "val_accuracy_ema": 0.4}] * 4)) is None
