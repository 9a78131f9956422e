"""Greedy ensemble selection, against choices worked out by hand and by trying everything."""

import itertools

import numpy as np
import pytest
from sklearn.metrics import log_loss

from fer_search.training.ensemble_selection import disagreement, select_ensemble


def binary(*p_of_label_1):
    """Probabilities (N, 2) of a model that gives label 1 these probabilities."""
    return np.stack([1 - np.array(p_of_label_1), np.array(p_of_label_1)], axis=1)


def test_a_worse_model_that_errs_elsewhere_is_taken_before_a_better_one_that_errs_alike():
    labels = np.array([1, 1, 1, 1])
    best = binary(0.9, 0.9, 0.9, 0.3)
    alike = binary(0.9, 0.9, 0.8, 0.32)
    other = binary(0.6, 0.6, 0.6, 0.9)
    picks = select_ensemble(np.stack([other, alike, best]), labels)
    # Alone, a quarter of -log(.9 * .9 * .9 * .3) = .3800, of -log(.9 * .9 * .8 * .32) = .3933, of
    # -log(.6 * .6 * .6 * .9) = .4095.
    # With the best one, of -log(.9 * .9 * .85 * .31) = .3862 and of -log(.75 * .75 * .75 * .6) = .3435.
    assert (picks[0].added, picks[0].nll) == (2, pytest.approx(0.3800, abs=5e-5))
    assert (picks[1].added, picks[1].nll) == (0, pytest.approx(0.3435, abs=5e-5))
    assert [pick.accuracy for pick in picks[:2]] == [0.75, 1.0]


def test_an_ensemble_of_one_is_all_where_nothing_lowers_the_likelihood():
    labels = np.array([0, 1, 1])
    good, bad = binary(0.1, 0.9, 0.9), binary(0.4, 0.6, 0.6)
    assert [pick.added for pick in select_ensemble(np.stack([bad, good]), labels)] == [1]
    assert [pick.added for pick in select_ensemble(np.stack([good, good]), labels)] == [0]


@pytest.fixture(scope="module")
def library():
    """Probabilities (6, 200, 3) of models that know something of the labels, each its own."""
    rng = np.random.default_rng(4)
    labels = rng.integers(0, 3, 200)
    logits = rng.normal(size=(6, 200, 3)) * 1.5 + 1.2 * np.eye(3)[labels]
    return np.exp(logits) / np.exp(logits).sum(2, keepdims=True), labels


def test_each_pick_is_the_best_of_all_that_could_be_added_and_the_last_addition_would_not_have_helped(library):
    probabilities, labels = library
    picks = select_ensemble(probabilities, labels)
    chosen = [pick.added for pick in picks]
    assert len(set(chosen)) > 2

    def nll(members):
        return log_loss(labels, probabilities[list(members)].mean(0), labels=range(3))

    for count, pick in enumerate(picks):
        found = [nll([*chosen[:count], each]) for each in range(6)]
        assert pick.added == np.argmin(found)
        assert pick.nll == pytest.approx(min(found))
    assert all(later.nll < earlier.nll for earlier, later in itertools.pairwise(picks))
    assert len(picks) == 20 or min(nll([*chosen, each]) for each in range(6)) >= picks[-1].nll


def test_the_greedy_weights_come_close_to_the_best_of_all_weights(library):
    probabilities, labels = library
    few = probabilities[:3]
    grid = [np.array(each) / 20 for each in itertools.product(range(21), repeat=3) if sum(each) == 20]
    best = min(log_loss(labels, np.tensordot(weights, few, 1), labels=range(3)) for weights in grid)
    picks = select_ensemble(few, labels)
    assert best <= picks[-1].nll + 1e-9
    assert picks[-1].nll - best < 0.1 * (picks[0].nll - best)


def test_disagreement_is_the_mean_share_of_images_that_another_one_calls_otherwise():
    first, second, third = np.array([0, 1, 2, 0]), np.array([0, 1, 2, 1]), np.array([0, 0, 0, 0])
    # First and second differ in one image of four, first and third in two, second and third in three.
    assert disagreement([first, second, third]) == pytest.approx([1.5 / 4, 2 / 4, 2.5 / 4])
