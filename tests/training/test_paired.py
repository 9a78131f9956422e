from math import comb

import numpy as np
import pytest
from scipy.stats import bootstrap
from sklearn.metrics import f1_score

from fer_search.training.paired import compare, mcnemar_p


def two_models(num_images, *, right=0.7, changed=0.2, seed=0):
    """Labels, the predictions of a model, and those of another one that differs from it in a share of the images."""
    rng = np.random.default_rng(seed)
    labels = rng.choice(7, num_images, p=[0.14, 0.02, 0.14, 0.25, 0.17, 0.11, 0.17])
    first = np.where(rng.uniform(size=num_images) < right, labels, rng.integers(0, 7, num_images))
    second = np.where(rng.uniform(size=num_images) < changed, rng.integers(0, 7, num_images), first)
    return labels, first, second


@pytest.mark.parametrize(("only_first", "only_second"), [(12, 4), (4, 12), (0, 5), (7, 7), (30, 21), (1, 0)])
def test_the_exact_p_is_the_binomial_tail_summed_by_hand(only_first, only_second):
    discordant = only_first + only_second
    tail = sum(comb(discordant, k) for k in range(max(only_first, only_second), discordant + 1)) / 2**discordant
    assert mcnemar_p(only_first, only_second) == pytest.approx(min(1, 2 * tail))


def test_the_discordant_images_are_counted():
    labels = np.array([0, 1, 2, 3, 4, 5])
    first, second = np.array([0, 1, 2, 0, 0, 0]), np.array([0, 0, 0, 3, 1, 0])
    found = compare(first, second, labels, num_classes=7)
    assert (found["only_first_correct"], found["only_second_correct"], found["num_images"]) == (2, 1, 6)
    assert found["accuracy_difference"]["value"] == pytest.approx(1 / 6)
    assert found["mcnemar_p"] == 1


def test_a_model_does_not_differ_from_itself():
    labels, first, _ = two_models(200)
    found = compare(first, first, labels, num_classes=7)
    nothing = {"value": 0, "low": 0, "high": 0}
    assert found["accuracy_difference"] == found["macro_f1_difference"] == nothing
    assert found["mcnemar_p"] == 1


def test_the_values_are_the_differences_of_the_models_own_figures():
    labels, first, second = two_models(500)
    found = compare(first, second, labels, num_classes=7)
    assert found["accuracy_difference"]["value"] == pytest.approx((first == labels).mean() - (second == labels).mean())
    f1 = [f1_score(labels, each, labels=range(7), average="macro", zero_division=0) for each in (first, second)]
    assert found["macro_f1_difference"]["value"] == pytest.approx(f1[0] - f1[1])


def test_the_intervals_are_those_of_scipys_paired_bootstrap():
    labels, first, second = two_models(400, seed=1)
    found = compare(first, second, labels, num_classes=7)

    def accuracy(labels, first, second, axis=-1):
        return (first == labels).mean(axis) - (second == labels).mean(axis)

    def macro_f1(labels, first, second):
        one, other = (f1_score(labels, x, labels=range(7), average="macro", zero_division=0) for x in (first, second))
        return one - other

    for name, statistic, num in (("accuracy", accuracy, 9999), ("macro_f1", macro_f1, 999)):
        low, high = bootstrap(
            (labels, first, second), statistic, paired=True, vectorized=name == "accuracy", n_resamples=num,
            method="percentile", rng=np.random.default_rng(2),
        ).confidence_interval  # fmt: skip
        ours = found[f"{name}_difference"]
        assert (ours["low"], ours["high"]) == pytest.approx((low, high), abs=0.12 * (high - low))


def test_an_emotion_that_a_resample_lacks_is_no_error():
    labels = np.array([0, 0, 0, 1])
    found = compare(np.array([0, 0, 1, 1]), np.array([0, 2, 0, 0]), labels, num_classes=7)
    assert all(np.isfinite([found["macro_f1_difference"][key] for key in ("value", "low", "high")]))


def test_the_same_predictions_give_the_same_intervals():
    labels, first, second = two_models(300)
    assert compare(first, second, labels, num_classes=7) == compare(first, second, labels, num_classes=7)


def test_a_tenth_of_public_test_discordant_separates_at_about_one_point():
    discordant = 359
    smallest = next(d for d in range(1, 100, 2) if mcnemar_p((discordant + d) // 2, (discordant - d) // 2) < 0.05)
    assert smallest / 3589 == pytest.approx(0.0105, abs=0.001)
