import numpy as np
import pytest
import torch
from sklearn.metrics import accuracy_score, f1_score, log_loss

from fer_search.training.evaluation import epoch_metrics, predict_logits
from fer_search.training.metrics import accuracy_interval, calibration_error, evaluate


@pytest.fixture
def outcome():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 300)
    logits = rng.normal(size=(300, 7)) + 1.5 * np.eye(7)[labels]
    probabilities = np.exp(logits) / np.exp(logits).sum(1, keepdims=True)
    return logits, probabilities, labels


def test_the_figures_agree_with_scikit_learn(outcome):
    _, probabilities, labels = outcome
    figures = evaluate(probabilities, labels)
    predicted = probabilities.argmax(1)
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert figures["nll"] == pytest.approx(log_loss(labels, probabilities))
    assert np.sum(figures["confusion"]) == 300


def test_the_figures_of_an_epoch_agree_with_those_of_an_evaluation(outcome):
    logits, probabilities, labels = outcome
    epoch, figures = epoch_metrics(torch.tensor(logits), torch.tensor(labels)), evaluate(probabilities, labels)
    assert epoch == pytest.approx(
        {"loss": figures["nll"], "accuracy": figures["accuracy"], "macro_f1": figures["macro_f1"]}, rel=1e-5
    )


def test_the_interval_is_wilsons_by_the_textbook_formula():
    n, p, z = 3589, 2620 / 3589, 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert accuracy_interval(2620, 3589) == pytest.approx((centre - half, centre + half))


def test_the_calibration_error_of_a_known_case():
    # four images at confidence 0.9, three of them right: |0.75 - 0.9| = 0.15; four at 0.5, all right: 0.5
    probabilities = np.zeros((8, 7))
    probabilities[:4, 0], probabilities[:4, 1] = 0.9, 0.1
    probabilities[4:, 0], probabilities[4:, 1:] = 0.5, 0.5 / 6
    labels = np.array([0, 0, 0, 1, 0, 0, 0, 0])
    assert calibration_error(probabilities, labels) == pytest.approx((0.15 * 4 + 0.5 * 4) / 8)


def test_a_class_without_images_has_no_recall(outcome):
    _, probabilities, labels = outcome
    figures = evaluate(probabilities[labels != 1], labels[labels != 1])
    assert figures["recall"]["disgust"] is None
    assert figures["recall"]["angry"] is not None


def test_predicting_leaves_the_mode_and_the_statistics_of_the_network_alone():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(48 * 48, 7))
    before = model[0].running_mean.clone()
    assert predict_logits(model, torch.zeros(3, 48, 48, dtype=torch.uint8)).shape == (3, 7)
    assert model.training
    assert torch.equal(model[0].running_mean, before)
