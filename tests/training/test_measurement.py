from dataclasses import replace

import numpy as np
import pytest
import torch
from scipy.special import softmax
from sklearn.metrics import accuracy_score, log_loss

from fer_search.data.faces import EMOTIONS, Faces
from fer_search.data.splits import split_faces
from fer_search.training.measurement import choose_views, measure_training
from fer_search.training.model import build_model
from fer_search.training.views import VIEW_SETS


@pytest.fixture(scope="module")
def splits(faces):
    pixels = faces.pixels.copy()
    training, public = (np.flatnonzero(faces.usage == usage) for usage in ("Training", "PublicTest"))
    pixels[public[:10]] = pixels[training[:10]]
    copied = Faces(pixels, faces.labels, faces.usage, faces.names)
    return split_faces(copied, seed=0, validation_fraction=0.2)


@pytest.fixture(scope="module")
def network(small):
    torch.manual_seed(0)
    network = build_model(small).eval()
    torch.nn.init.normal_(network.classifier.weight, std=0.3)
    return network


@pytest.fixture(scope="module")
def measured(network, splits):
    return measure_training(network, splits)[:2]


def sure_of(classes, confidence):
    return confidence * np.eye(7, dtype=np.float32)[classes]


def test_the_views_with_the_higher_validation_accuracy_are_chosen():
    labels = np.arange(70) % 7
    worse = np.where(np.arange(70) < 10, (labels + 1) % 7, labels)
    for best in VIEW_SETS:
        logits = {views: sure_of(labels if views == best else worse, 2.0) for views in VIEW_SETS}
        choice = choose_views(logits, labels, EMOTIONS)
        assert choice.views == best
        assert choice.val_accuracy == {views: 1.0 if views == best else pytest.approx(6 / 7) for views in VIEW_SETS}


def test_at_a_tie_the_lower_nll_decides_and_then_the_single_view():
    labels = np.arange(70) % 7
    worse = sure_of(np.where(np.arange(70) < 10, (labels + 1) % 7, labels), 2.0)
    unsure = worse.copy()
    unsure[::2] /= 4  # the same classes, and no temperature mends what varies from image to image
    assert choose_views({"plain": unsure, "tta": worse}, labels, EMOTIONS).views == "tta"
    assert choose_views({"plain": worse, "tta": unsure}, labels, EMOTIONS).views == "plain"
    assert choose_views({"plain": worse, "tta": worse}, labels, EMOTIONS).views == "plain"


def test_the_choice_does_not_depend_on_the_public_images(network, splits, measured):
    public = splits.public
    other = Faces(255 - public.pixels, (public.labels + 1) % 7, public.usage, public.names)
    assert measure_training(network, replace(splits, public=other))[0] == measured[0]


@pytest.mark.parametrize("views", VIEW_SETS)
def test_the_figures_are_those_of_the_network_that_is_exported(views, network, splits, measured):
    choice, metrics = measured
    prediction = replace(choice, views=views).prediction_net(network)
    unique = splits.public.take(splits.public_unique)
    assert 0 < len(unique) < len(splits.public)
    parts = {"validation": splits.validation, "public": splits.public, "public_unique": unique}
    assert set(metrics) == set(parts)
    for name, faces in parts.items():
        with torch.no_grad():
            logits = prediction(torch.tensor(faces.pixels[:, None]) / 255).double().numpy()
        found = metrics[name][views]
        assert found["num_images"] == len(faces)
        assert found["accuracy"] == pytest.approx(accuracy_score(faces.labels, logits.argmax(1)), abs=1e-9)
        nll = log_loss(faces.labels, softmax(logits, axis=1), labels=range(7))
        assert found["calibrated"]["nll"] == pytest.approx(nll, rel=1e-4)
    assert metrics["validation"][views]["accuracy"] == choice.val_accuracy[views]
    assert metrics["validation"][views]["calibrated"]["nll"] == choice.val_nll[views]
    assert metrics["validation"][views]["calibrated"]["nll"] <= metrics["validation"][views]["nll"] + 1e-9


def test_a_public_split_of_copies_alone_has_no_figures_without_them(network, splits):
    none = np.zeros(len(splits.public), dtype=bool)
    assert set(measure_training(network, replace(splits, public_unique=none))[1]) == {"validation", "public"}
