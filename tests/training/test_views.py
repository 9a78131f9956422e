import numpy as np
import onnxruntime
import pytest
import torch
from scipy import ndimage
from scipy.special import softmax

from fer_search.bundle import parity, write_onnx
from fer_search.data.synthetic import synthesize
from fer_search.training.model import build_model
from fer_search.training.views import VIEW_SETS, VIEWS, PredictionNet, combine


def by_scipy(name, image):
    """The view of one image (48, 48), resampled by scipy."""
    centre = 23.5
    return {
        "identity": lambda: image,
        "mirrored": lambda: np.fliplr(image),
        "shifted_left": lambda: ndimage.shift(image, (0, -2), order=0),
        "shifted_right": lambda: ndimage.shift(image, (0, 2), order=0),
        "zoomed": lambda: ndimage.affine_transform(image, [1 / 1.1, 1 / 1.1], centre - centre / 1.1, order=1),
    }[name]()


@pytest.fixture(scope="module")
def images():
    return synthesize(60, seed=4).pixels[:9, None].astype(np.float32) / 255


@pytest.fixture(scope="module")
def network(small):
    torch.manual_seed(0)
    network = build_model(small).eval()
    for module in network.modules():  # statistics that are not those of a new network, and answers that differ
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.2, 0.2)
            torch.nn.init.uniform_(module.weight, 0.8, 1.5)
    torch.nn.init.normal_(network.classifier.weight, std=0.5)
    return network


@pytest.mark.parametrize("name", VIEWS)
def test_a_view_is_what_scipy_makes_of_the_image(name, images):
    seen = VIEWS[name](torch.tensor(images)).numpy()
    assert seen.shape == images.shape
    for one, image in zip(seen, images, strict=True):
        np.testing.assert_allclose(one[0], by_scipy(name, image[0]), atol=1e-5)
    assert seen.min() >= 0
    assert seen.max() <= 1


def test_every_view_shows_something_else_and_the_same_each_time(images):
    seen = [[view(torch.tensor(images)) for view in VIEWS.values()] for _ in range(2)]
    assert all(torch.equal(one, other) for one, other in zip(*seen, strict=True))
    for i in range(5):
        assert not any(torch.equal(seen[0][i], other) for other in seen[0][:i])


def test_the_combined_logits_say_the_mean_probability_even_of_sure_views():
    logits = np.random.default_rng(0).normal(size=(5, 40, 7)) * 60
    mean = softmax(logits, axis=2).mean(0)
    combined = combine(torch.tensor(logits))
    np.testing.assert_allclose(softmax(combined.numpy(), axis=1), mean, atol=1e-12)
    np.testing.assert_allclose(combined.numpy(), np.log(mean), atol=1e-9)


def reference(network, images, *, views, temperature, shift):
    """The final probabilities, by scipy's views and one pass for each of them."""
    with torch.no_grad():
        each = [
            network(torch.tensor(np.stack([by_scipy(name, image[0]) for image in images]).astype(np.float32)[:, None]))
            for name in views
        ]
    mean = softmax(torch.stack(each).double().numpy(), axis=2).mean(0)
    powers = mean ** (1 / temperature) * np.exp(shift)
    return powers / powers.sum(1, keepdims=True)


@pytest.mark.parametrize("views", VIEW_SETS)
def test_the_exported_prediction_is_the_mean_over_the_views_at_the_temperature_and_shifted(
    views, network, images, tmp_path
):
    shift = [0.1 * number for number in range(7)]
    expected = reference(network, images, views=VIEW_SETS[views], temperature=1.7, shift=shift)
    prediction = PredictionNet(network, views=VIEW_SETS[views], temperature=1.7, shift=shift).eval()
    with torch.no_grad():
        np.testing.assert_allclose(softmax(prediction(torch.tensor(images)).numpy(), axis=1), expected, atol=1e-5)
    write_onnx(prediction, tmp_path / "model.onnx")
    assert parity(prediction, tmp_path / "model.onnx") < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    for num_images in (1, 9):
        (logits,) = session.run(["logits"], {"images": images[:num_images]})
        np.testing.assert_allclose(softmax(logits, axis=1), expected[:num_images], atol=1e-5)


def test_one_view_leaves_the_networks_logits_as_they_are(network, images):
    with torch.no_grad():
        shown = torch.tensor(images)
        logits = PredictionNet(network, views=("identity",), temperature=2.0)(shown)
        torch.testing.assert_close(logits, network(shown) / 2)
