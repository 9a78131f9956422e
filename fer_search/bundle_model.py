"""A bundle as a PyTorch module."""

from os import PathLike
from pathlib import Path

from fer_search.assessment import read_bundle
from fer_search.training.views import PredictionNet


def load_model(bundle: str | PathLike[str]) -> PredictionNet:
    """Return the network of a bundle's directory as its ONNX file has it, in evaluation mode on the CPU.

    It takes images (N, channels, height, width) in [0, 1] and gives logits (N, classes), whose softmax are the
    probabilities: views and temperature are inside. Its `network` is the trained network alone, to be trained further,
    and `network.backbone.network` the timm network in it. Raises InvalidInput for a damaged bundle.
    """
    found = read_bundle(Path(bundle))
    return found.choice.prediction_net(found.network()).eval()
