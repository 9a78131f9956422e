import numpy as np
import pytest
import torch
from scipy.special import softmax
from scipy.stats import binomtest
from sklearn.metrics import accuracy_score, f1_score, log_loss, precision_score, recall_score

from fer_search.data.faces import EMOTIONS
from fer_search.training.evaluation import epoch_metrics, predict_logits
from fer_search.training.metrics import accuracy_interval, evaluate
from fer_search.training.views import mirrored


@pytest.fixture
def outcome():
    rng = np.random.default_rng(0)
    labels = rng.integers(0, 7, 300)
    logits = rng.normal(size=(300, 7)) + 1.5 * np.eye(7)[labels]
    return logits, labels


def test_the_figures_agree_with_scikit_learn(outcome):
    logits, labels = outcome
    figures = evaluate(logits, labels, classes=EMOTIONS, temperature=2.5)
    predicted = logits.argmax(1)
    assert figures["num_images"] == 300
    assert figures["accuracy"] == pytest.approx(accuracy_score(labels, predicted))
    assert figures["macro_f1"] == pytest.approx(f1_score(labels, predicted, average="macro"))
    assert figures["nll"] == pytest.approx(log_loss(labels, softmax(logits, axis=1)))
    assert figures["calibrated"]["nll"] == pytest.approx(log_loss(labels, softmax(logits / 2.5, axis=1)))
    assert figures["calibrated"]["temperature"] == 2.5
    assert np.sum(figures["confusion"]) == 300
    for name, score in (("precision", precision_score), ("recall", recall_score)):
        assert list(figures[name].values()) == pytest.approx(score(labels, predicted, average=None))
        assert tuple(figures[name]) == EMOTIONS


def test_the_figures_of_an_epoch_agree_with_those_of_an_evaluation(outcome):
    logits, labels = outcome
    epoch, figures = (
        epoch_metrics(torch.tensor(logits), torch.tensor(labels)),
        evaluate(logits, labels, classes=EMOTIONS, temperature=1),
    )
    assert epoch == pytest.approx(
        {"loss": figures["nll"], "accuracy": figures["accuracy"], "macro_f1": figures["macro_f1"]}, rel=1e-5
    )


def test_the_macro_f1_of_an_epoch_is_scikit_learns_also_where_classes_are_neither_there_nor_predicted():
    labels, predicted = torch.tensor([0, 0, 1, 3, 3, 4]), torch.tensor([0, 1, 1, 3, 0, 6])
    expected = f1_score(labels, predicted, labels=range(7), average="macro", zero_division=0)
    assert epoch_metrics(torch.eye(7)[predicted], labels)["macro_f1"] == pytest.approx(expected)


def test_the_interval_is_wilsons_by_the_textbook_formula():
    n, p, z = 3589, 2620 / 3589, 1.959963984540054
    centre = (p + z**2 / (2 * n)) / (1 + z**2 / n)
    half = z / (1 + z**2 / n) * np.sqrt(p * (1 - p) / n + z**2 / (4 * n**2))
    assert accuracy_interval(2620, 3589) == pytest.approx((centre - half, centre + half))


@pytest.mark.parametrize(("num_correct", "num_images"), [(0, 10), (10, 10), (1, 1), (3, 7), (2620, 3589)])
def test_the_interval_is_scipys_also_where_all_or_nothing_is_right(num_correct, num_images):
    expected = binomtest(num_correct, num_images).proportion_ci(0.95, method="wilson")
    assert accuracy_interval(num_correct, num_images) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_a_class_without_images_has_no_recall_and_one_never_predicted_no_precision(outcome):
    logits, labels = outcome
    logits[:, EMOTIONS.index("fear")] = -100
    kept = labels != EMOTIONS.index("disgust")
    figures = evaluate(logits[kept], labels[kept], classes=EMOTIONS, temperature=1)
    assert figures["recall"]["disgust"] is None
    assert figures["precision"]["disgust"] == 0
    assert figures["precision"]["fear"] is None
    assert figures["recall"]["fear"] == 0
    assert figures["recall"]["angry"] is not None


def test_a_view_is_what_the_network_is_shown():
    model = torch.nn.Flatten()
    pixels = torch.randint(256, (3, 48, 48), dtype=torch.uint8)
    shown = predict_logits(model, pixels, view=mirrored).reshape(3, 48, 48)
    np.testing.assert_allclose(shown, pixels.numpy()[:, :, ::-1] / 255, rtol=1e-6)


def test_predicting_leaves_the_mode_and_the_statistics_of_the_network_alone():
    model = torch.nn.Sequential(torch.nn.BatchNorm2d(1), torch.nn.Flatten(), torch.nn.Linear(48 * 48, 7))
    before = model[0].running_mean.clone()
    assert predict_logits(model, torch.zeros(3, 48, 48, dtype=torch.uint8)).shape == (3, 7)
    assert model.training
    assert torch.equal(model[0].running_mean, before)
