import subprocess
import sys

import numpy as np
import pytest

from fer_search.data.audit import audit
from fer_search.data.faces import EMOTIONS, IMAGE_SIZE
from fer_search.data.synthetic import synthesize
from fer_search.errors import InvalidInput

# FER2013's own counts over all three usages.
FER2013_COUNTS = np.array([4953, 547, 5121, 8989, 6077, 4002, 6198])


def test_the_same_seed_gives_the_same_faces_in_another_process():
    code = "from fer_search.data.synthetic import synthesize; print(synthesize(200, seed=11).fingerprint())"
    elsewhere = subprocess.run([sys.executable, "-c", code], check=True, capture_output=True, text=True).stdout
    assert synthesize(200, seed=11).fingerprint() == elsewhere.strip()
    assert synthesize(200, seed=12).fingerprint() != elsewhere.strip()


def test_the_global_random_state_is_neither_read_nor_changed():
    np.random.seed(0)
    before = np.random.get_state()[1].copy()
    first = synthesize(60)
    np.testing.assert_array_equal(np.random.get_state()[1], before)
    np.random.seed(1)
    assert synthesize(60).fingerprint() == first.fingerprint()


def test_emotions_have_the_proportions_of_fer2013():
    counts = np.bincount(synthesize(2000).labels, minlength=len(EMOTIONS))
    np.testing.assert_allclose(counts / 2000, FER2013_COUNTS / FER2013_COUNTS.sum(), atol=0.002)


def test_four_fifths_of_every_emotion_are_training():
    faces = synthesize(2000)
    for label in range(len(EMOTIONS)):
        usage = faces.usage[faces.labels == label]
        assert np.mean(usage == "Training") == pytest.approx(0.8, abs=0.06)
        assert np.sum(usage == "PublicTest") > 0
        assert np.sum(usage == "PrivateTest") > 0


@pytest.mark.parametrize("num_faces", [50, 51, 99, 257])
def test_any_number_of_faces_has_every_emotion(num_faces):
    faces = synthesize(num_faces)
    assert len(faces) == num_faces
    assert np.bincount(faces.labels, minlength=7).min() >= 4
    assert faces.pixels.shape == (num_faces, IMAGE_SIZE, IMAGE_SIZE)
    assert len(set(faces.names)) == num_faces


def test_no_face_is_blank_or_twice_there():
    found = audit(synthesize(500))
    assert found.duplicate_groups == found.constant_images == 0


def test_faces_of_one_emotion_vary_and_use_the_grey_range():
    faces = synthesize(500)
    happy = faces.pixels[faces.labels == EMOTIONS.index("happy")].astype(np.float64)
    assert happy.std(axis=0).min() > 20
    assert np.median(np.ptp(faces.pixels.reshape(500, -1), axis=1)) > 150


def test_label_noise_changes_that_share_of_training_labels_and_no_picture():
    clean, noisy = synthesize(2000, seed=1), synthesize(2000, seed=1, label_noise=0.3)
    np.testing.assert_array_equal(clean.pixels, noisy.pixels)
    wrong = clean.labels != noisy.labels
    assert np.mean(wrong[clean.usage == "Training"]) == pytest.approx(0.3, abs=0.04)
    assert not np.any(wrong[clean.usage != "Training"])
    noisiest = synthesize(200, label_noise=1.0).where("Training").labels
    assert set(noisiest == synthesize(200).where("Training").labels) == {False}


def test_a_linear_classifier_learns_something_and_far_from_all():
    from sklearn.decomposition import PCA
    from sklearn.discriminant_analysis import LinearDiscriminantAnalysis
    from sklearn.pipeline import make_pipeline

    faces = synthesize(2000)
    training, test = faces.where("Training"), faces.take(faces.usage != "Training")
    model = make_pipeline(PCA(100, random_state=0), LinearDiscriminantAnalysis())
    model.fit(training.pixels.reshape(len(training), -1).astype(np.float32), training.labels)
    accuracy = model.score(test.pixels.reshape(len(test), -1).astype(np.float32), test.labels)
    majority = np.mean(test.labels == EMOTIONS.index("happy"))
    assert majority + 0.05 < accuracy < 0.6


@pytest.mark.parametrize("arguments", [{"num_faces": 49}, {"label_noise": -0.1}, {"label_noise": 1.1}])
def test_arguments_out_of_range_are_refused(arguments):
    with pytest.raises(InvalidInput, match=next(iter(arguments))):
        synthesize(**arguments)
