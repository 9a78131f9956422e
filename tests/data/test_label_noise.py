import numpy as np
import pytest
from sklearn.datasets import make_blobs
from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
from sklearn.model_selection import cross_val_predict

from fer_search.data.label_noise import find_label_noise


def test_the_estimate_and_the_suspects_are_those_worked_out_by_hand():
    labels = np.array([0, 0, 0, 0, 1, 1])
    first = np.array([0.9, 0.8, 0.2, 0.5, 0.1, 0.7])
    found = find_label_noise(np.stack([first, 1 - first], axis=1), labels)
    # Class 0: the mean of .9, .8, .2 and .5. Class 1: that of .9 and .3. Images 0, 1 and 5 are confidently of class 0,
    # 2 and 4 of class 1; image 3 of neither.
    assert found.thresholds == pytest.approx([0.6, 0.6])
    # Of four labels 0, three have a confident image, of which one is of class 1; of two labels 1, one and one.
    assert found.joint == pytest.approx(np.array([[4 * 2 / 3, 4 / 3], [1, 1]]))
    assert found.share == pytest.approx((4 / 3 + 1) / 6)
    assert found.share_of_class == pytest.approx([1 / 3, 1 / 2])
    assert found.suspects.tolist() == [2, 5]  # by .2 - .8 and .3 - .7
    assert found.suggested.tolist() == [1, 0]
    assert found.margins == pytest.approx([-0.6, -0.4])


def test_an_image_above_two_thresholds_counts_for_the_more_probable_class():
    probabilities = np.array([[0.5, 0.3, 0.2], [0.2, 0.3, 0.5], [0.4, 0.35, 0.25]])
    found = find_label_noise(probabilities, np.array([0, 1, 2]))
    # The thresholds are .5, .3 and .25: images 0, 1 and 2 reach those of 0 and 1, 1 and 2, 1 and 2.
    assert found.suspects.tolist() == [1, 2]
    assert found.suggested.tolist() == [2, 1]


def test_a_class_without_images_or_without_a_confident_one_says_nothing_and_breaks_nothing():
    probabilities = np.array([[0.9, 0.1, 0.0], [0.6, 0.2, 0.2], [0.7, 0.3, 0.0]])
    found = find_label_noise(probabilities, np.array([0, 0, 1]))
    assert found.joint.sum(1) == pytest.approx([2, 1, 0])
    assert np.isnan(found.share_of_class[2])
    assert found.share == pytest.approx(0)
    assert not len(found.suspects)


@pytest.fixture(scope="module", params=[0.1, 0.3])
def mislabelled(request):
    """Points of five classes of which a share has a wrong label: the share, labels, true labels, and what a classifier
    says of each that has not learned from it. It is right of nearly all, as no network is of FER2013.
    """
    points, true = make_blobs([600, 500, 400, 300, 200], n_features=6, cluster_std=1.5, random_state=0)
    rng = np.random.default_rng(1)
    wrong = rng.random(len(true)) < request.param
    labels = np.where(wrong, (true + rng.integers(1, 5, len(true))) % 5, true)
    classifier = LinearDiscriminantAnalysis()
    probabilities = cross_val_predict(classifier, points, labels, cv=4, method="predict_proba")
    assert (probabilities.argmax(1) == true).mean() > 0.97
    return float(wrong.mean()), labels, true, probabilities


def test_most_wrong_labels_are_found_and_their_share_is_about_right(mislabelled):
    share, labels, true, probabilities = mislabelled
    found = find_label_noise(probabilities, labels)
    wrong = labels != true
    assert wrong[found.suspects].sum() > 0.9 * wrong.sum()
    assert wrong[found.suspects[: wrong.sum() // 2]].mean() > 0.97
    right = found.suggested == true[found.suspects]
    assert right[wrong[found.suspects]].mean() > 0.95
    assert found.share == pytest.approx(share, abs=0.03)


def test_a_rows_sum_is_how_many_images_have_the_label(mislabelled):
    _, labels, _, probabilities = mislabelled
    found = find_label_noise(probabilities, labels)
    np.testing.assert_allclose(found.joint.sum(1), np.bincount(labels))
    assert (np.diff(found.margins) >= 0).all()
