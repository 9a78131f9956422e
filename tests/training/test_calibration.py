import numpy as np
import pytest
from scipy.special import softmax
from sklearn.metrics import log_loss

from fer_search.training.calibration import calibration_error, fit_temperature, log_probabilities


def drawn_from_their_own_probabilities(num_images, seed=0):
    """Logits whose softmax is right by construction: the labels are drawn from it."""
    rng = np.random.default_rng(seed)
    logits = 2 * rng.normal(size=(num_images, 7))
    below = softmax(logits, axis=1).cumsum(1)
    return logits, (rng.uniform(size=(num_images, 1)) > below).sum(1).clip(max=6)


@pytest.mark.parametrize("factor", [0.4, 1, 3])
def test_logits_times_a_factor_want_that_factor_as_temperature(factor):
    logits, labels = drawn_from_their_own_probabilities(40_000)
    assert fit_temperature(logits * factor, labels) == pytest.approx(factor, rel=0.03)


def test_no_temperature_of_a_grid_is_better():
    logits, labels = drawn_from_their_own_probabilities(300)
    grid = np.geomspace(1, 20, 400)
    losses = [log_loss(labels, softmax(5 * logits / temperature, axis=1)) for temperature in grid]
    assert fit_temperature(5 * logits, labels) == pytest.approx(grid[np.argmin(losses)], rel=0.006)


def test_a_network_without_a_mistake_gets_a_temperature_within_the_bounds():
    labels = np.arange(70) % 7
    assert 0.05 <= fit_temperature(np.eye(7)[labels], labels) < 0.1


def test_a_temperature_changes_no_predicted_class():
    logits, labels = drawn_from_their_own_probabilities(500)
    logits = (3 * logits).astype(np.float32)
    scaled = log_probabilities(logits, fit_temperature(logits, labels))
    assert (scaled.argmax(1) == logits.argmax(1)).all()
    np.testing.assert_allclose(np.exp(scaled).sum(1), 1)


def test_the_fitted_temperature_mends_the_calibration_of_other_images():
    logits, labels = drawn_from_their_own_probabilities(40_000)
    temperature = fit_temperature(3 * logits[:5000], labels[:5000])
    before, after = (
        calibration_error(softmax(3 * logits[5000:] / each, axis=1), labels[5000:]) for each in (1, temperature)
    )
    assert before > 0.1
    assert after < 0.02


def test_the_calibration_error_of_a_known_case():
    # four images at confidence 0.9, three of them right: |0.75 - 0.9| = 0.15; four at 0.5, all right: 0.5
    probabilities = np.zeros((8, 7))
    probabilities[:4, 0], probabilities[:4, 1] = 0.9, 0.1
    probabilities[4:, 0], probabilities[4:, 1:] = 0.5, 0.5 / 6
    labels = np.array([0, 0, 0, 1, 0, 0, 0, 0])
    assert calibration_error(probabilities, labels) == pytest.approx((0.15 * 4 + 0.5 * 4) / 8)
