import pytest
import timm
import torch

from fer_search.errors import InvalidInput
from fer_search.recipe import Recipe
from fer_search.training.model import build_model


def build(**changes):
    return build_model(Recipe().replace({"backbone": "test_efficientnet", **changes}))


def test_the_network_is_timms_own_on_normalised_grey_faces():
    model = build(stem_stride=2).eval()
    reference = timm.create_model("test_efficientnet", in_chans=1, num_classes=7).eval()
    reference.load_state_dict(model.backbone.state_dict())
    images = torch.rand(3, 1, 48, 48)
    torch.testing.assert_close(model(images), reference((images - 0.5) / 0.5))


@pytest.mark.parametrize(("stride", "side"), [(1, 3), (2, 2)])
def test_the_stem_stride_decides_how_much_is_left_of_48_pixels(stride, side):
    model = build(stem_stride=stride)
    assert model.backbone.forward_features(torch.zeros(1, 1, 48, 48)).shape[-2:] == (side, side)


def test_the_default_network_takes_a_face():
    assert build_model(Recipe()).eval()(torch.zeros(1, 1, 48, 48)).shape == (1, 7)


def test_the_weights_follow_from_the_seed_and_nothing_else():
    torch.manual_seed(1)
    first = build().state_dict()
    torch.manual_seed(2)
    second, other = build().state_dict(), build(seed=1).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    assert not torch.equal(first["backbone.conv_stem.weight"], other["backbone.conv_stem.weight"])


def test_dropout_and_drop_path_reach_the_network():
    model = build(dropout=0.35, drop_path=0.21)
    assert model.backbone.drop_rate == 0.35
    rates = [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]
    assert 0 < max(rates) <= 0.21


def test_an_unknown_backbone_is_named_with_the_nearest_one():
    with pytest.raises(
        InvalidInput, match=r"backbone: must be the name of a timm model \(did you mean 'efficientnet_b0'"
    ):
        build(backbone="eficientnet_b0")


def test_a_backbone_without_a_convolution_first_is_refused():
    with pytest.raises(InvalidInput, match="backbone: must"):
        build(backbone="mixer_s16_224")
