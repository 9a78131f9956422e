import numpy as np
import onnxruntime
import pytest
import torch

from fer_search.bundle import parity, write_onnx
from fer_search.recipe import Recipe
from fer_search.training.model import build_model
from fer_search.training.views import VIEW_SETS, PredictionNet

FULL = {
    "backbone": "test_efficientnet", "pretrained": False, "image_size": 48, "stem_stride": 2, "output_stride": 32,
    "fusion_width": 32, "se_attention": True, "cbam_attention": True, "coordinate_attention": True,
    "self_attention_heads": 2, "pyramid_pooling": True, "emotion_heads_weight": 0.3, "auxiliary_weight": 0.3,
}  # fmt: skip


@pytest.fixture(scope="module")
def network():
    """A network with every part on, statistics that are not those of a new one, and answers that differ."""
    network = build_model(Recipe().replace(FULL))
    torch.manual_seed(0)
    with torch.no_grad():
        for _ in range(20):
            network(torch.rand(16, 1, 48, 48) ** 2)
        torch.nn.init.normal_(network.classifier.weight, std=0.2)
    return network.eval()


def test_a_network_with_every_part_on_is_exported_as_it_is(network, tmp_path):
    """In all views; that a single one is exported too is shown in test_views.py."""
    prediction = PredictionNet(network, views=VIEW_SETS["tta"], temperature=1.3).eval()
    write_onnx(prediction, tmp_path / "model.onnx")
    assert parity(prediction, tmp_path / "model.onnx") < 1e-4
    session = onnxruntime.InferenceSession(tmp_path / "model.onnx")
    images = torch.rand(7, 1, 48, 48, generator=torch.Generator().manual_seed(3)) ** 2
    with torch.no_grad():
        expected = prediction(images).numpy()
    assert expected.std(0).mean() > 0.1  # the images tell in the logits
    for num_images in (1, 7):
        (logits,) = session.run(["logits"], {"images": images[:num_images].numpy()})
        np.testing.assert_allclose(logits, expected[:num_images], rtol=0, atol=1e-4)
