from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.linear_model import LogisticRegression

from fer_search.data.faces import EMOTIONS
from fer_search.report_choice import adjustment_line
from fer_search.training.logit_adjustment import TAUS, choose_tau, log_prior
from fer_search.training.measurement import ViewChoice, choose_adjustment, choose_views, figures_of


def test_the_prior_is_the_share_of_each_class():
    np.testing.assert_allclose(log_prior(np.array([0, 0, 0, 1]), 2), np.log([0.75, 0.25]))


def test_the_adjustment_of_two_images_is_the_one_that_was_computed_by_hand():
    """Class 0 is three times as frequent: tau moves the border by tau * log 3 = 1.1 tau towards class 1.

    Half of the images have logits (1, 0) and are of class 1: right where 1.1 tau > 1, so from tau = 1.0 on. The others
    have (1.2, 0) and are of class 0: right up to 1.1 tau = 1.2, so up to tau = 1.0.
    """
    scores, labels = np.tile([[1.0, 0.0], [1.0, 0.0], [1.2, 0.0], [1.2, 0.0]], (10, 1)), np.tile([1, 1, 0, 0], 10)
    found = choose_tau(scores, labels, np.log([0.75, 0.25]))
    assert (found.tau, found.tried) == (1.0, 1.0)
    assert found.p_value == pytest.approx(2 * 0.5**20)  # twenty images are won, none is lost


def test_what_does_not_pass_the_test_is_left_out_and_at_a_tie_nothing_is_shifted():
    scores, labels = np.array([[1.0, 0.0], [1.0, 0.0], [1.2, 0.0], [1.2, 0.0]]), np.array([1, 1, 0, 0])
    found = choose_tau(scores, labels, np.log([0.75, 0.25]))
    assert (found.tau, found.tried, found.p_value) == (0.0, 1.0, 0.5)
    same = choose_tau(10 * np.eye(2)[labels], labels, np.log([0.75, 0.25]))
    assert (same.tau, same.tried, same.p_value) == (0.0, 0.0, 1.0)


@pytest.fixture(scope="module")
def weighted():
    """Labels of very unequal classes, and logits of a classifier that was trained as if they were equal."""
    rng = np.random.default_rng(0)
    labels = np.repeat(np.arange(7), [300, 20, 300, 600, 300, 200, 280])
    rng.shuffle(labels)
    features = rng.normal(size=(7, 4))[labels] * 0.8 + rng.normal(size=(len(labels), 4))
    model = LogisticRegression(class_weight="balanced", C=100.0).fit(features[:1000], labels[:1000])
    logits = model.decision_function(features).astype(np.float32)
    return logits[1000:], labels[1000:], labels[:1000]


def test_a_classifier_with_balanced_weights_is_shifted_back_to_the_frequencies(weighted):
    logits, labels, fit_labels = weighted
    found = choose_tau(logits, labels, log_prior(fit_labels, 7))
    assert -1.5 <= found.tau <= -0.5  # exactly -1 undoes the weights
    assert found.p_value < 0.05


def test_what_plain_training_gives_is_left_as_it_is(weighted):
    logits, labels, fit_labels = weighted
    undone = logits + log_prior(fit_labels, 7)
    assert choose_tau(undone, labels, log_prior(fit_labels, 7)).tau == 0.0


class Given(torch.nn.Module):
    """A network that gives the first pixels of an image as its logits."""

    def forward(self, images):
        return images[:, 0, 0, :7]


def test_the_figures_and_the_network_that_predicts_are_those_of_the_shifted_logits(weighted):
    logits, labels, fit_labels = weighted
    by_views = {"plain": logits, "tta": logits}
    before = choose_views(by_views, labels, EMOTIONS)
    choice = choose_adjustment(before, by_views, labels, fit_labels, EMOTIONS)
    expected = logits / choice.temperature["plain"] - choice.tau * log_prior(fit_labels, 7)
    accuracy = np.mean(expected.argmax(1) == labels)
    assert accuracy > before.val_accuracy["plain"]
    figures = figures_of(by_views, labels, EMOTIONS, choice)["plain"]
    assert figures["accuracy"] == pytest.approx(accuracy) == choice.val_accuracy["plain"]
    nll = -np.log(softmax(expected.astype(float), axis=1)[np.arange(len(labels)), labels]).mean()
    assert figures["calibrated"]["nll"] == pytest.approx(nll, rel=1e-4) == choice.val_nll["plain"]
    images = torch.zeros((len(logits), 1, 48, 48))
    images[:, 0, 0, :7] = torch.tensor(logits)
    prediction = replace(choice, views="plain").prediction_net(Given())
    np.testing.assert_allclose(prediction(images).numpy(), expected, atol=1e-4)


def test_results_of_older_versions_have_none(weighted):
    logits = {"plain": weighted[0], "tta": weighted[0]}
    choice = ViewChoice("plain", {"plain": 1.0, "tta": 1.0}, {}, {})
    assert choice.shift is None
    assert choice.adjusted(logits) is logits
    assert replace(choice, tau=0.0, log_prior=[-1.0] * 7).shift is None


def test_no_adjustment_is_the_first_that_is_tried():
    assert TAUS[0] == 0
    assert {-1.5, -0.1, 1.0} <= set(TAUS)


def test_it_is_printed_where_there_is_one():
    assert adjustment_line({"views": "plain"}) is None
    assert adjustment_line({"tau": 0.0, "tau_tried": 0.2, "tau_p": 0.3}) is None
    line = adjustment_line({"tau": -0.7, "tau_tried": -0.7, "tau_p": 0.012})
    assert line == (
        "logit adjustment: logits minus -0.7 * log(share of the class) (exact McNemar p = 0.012 on search-validation)"
    )
