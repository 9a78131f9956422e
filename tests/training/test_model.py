import pytest
import timm
import torch
from timm.layers import Attention, SEModule
from timm.layers.cbam import CbamModule
from timm.layers.coord_attn import CoordAttn

from fer_search.errors import InvalidInput
from fer_search.recipe import Recipe
from fer_search.training.loss import image_losses
from fer_search.training.model import build_model
from fer_search.training.model_summary import summarize

PLAIN = {
    "backbone": "test_efficientnet", "pretrained": False, "image_size": 48, "stem_stride": 2, "output_stride": 32,
    "fusion_width": 0, "se_attention": False, "cbam_attention": False, "coordinate_attention": False,
    "self_attention_heads": 0, "pyramid_pooling": False, "emotion_heads_weight": 0.0, "auxiliary_weight": 0.0,
}  # fmt: skip
FULL = {
    "fusion_width": 32, "se_attention": True, "cbam_attention": True, "coordinate_attention": True,
    "self_attention_heads": 2, "pyramid_pooling": True, "emotion_heads_weight": 0.3, "auxiliary_weight": 0.3,
}  # fmt: skip


HEADS = ("emotion_heads_weight", "auxiliary_weight")  # they speak in training alone


def settings(**changes):
    return Recipe().replace({**PLAIN, **changes})


def build(**changes):
    return build_model(settings(**changes))


def batch(num_images):
    """Random images, and targets as mixing makes them."""
    generator = torch.Generator().manual_seed(1)
    images = torch.rand(num_images, 1, 48, 48, generator=generator)
    return images, torch.rand(num_images, 7, generator=generator).softmax(1)


def loss_of(model, images, targets, recipe):
    return image_losses(model.outputs(images), targets, torch.ones(7), recipe).mean()


def test_with_every_part_off_the_network_is_timms_own_on_normalised_grey_faces():
    model = build().eval()
    reference = timm.create_model("test_efficientnet", in_chans=1, num_classes=7).eval()
    state = model.backbone.network.state_dict()
    head = {"classifier.weight": model.classifier.weight, "classifier.bias": model.classifier.bias}
    reference.load_state_dict({**state, **head})
    images = torch.rand(3, 1, 48, 48)
    mean, std = (sum(reference.pretrained_cfg[key]) / 3 for key in ("mean", "std"))
    torch.testing.assert_close(model(images), reference((images - mean) / std))


@pytest.mark.parametrize(
    ("changes", "sides"),
    [
        ({"stem_stride": 2}, [6, 3, 2]),
        ({"stem_stride": 1}, [12, 6, 3]),
        ({"stem_stride": 2, "output_stride": 16}, [6, 3, 3]),
        ({"stem_stride": 2, "output_stride": 8}, [6, 6, 6]),
        ({"stem_stride": 2, "image_size": 96}, [12, 6, 3]),
    ],
)
def test_three_fields_decide_how_much_is_left_of_48_pixels(changes, sides):
    model = build(**changes, fusion_width=16, self_attention_heads=1)
    assert [shape[1:] for shape in model.backbone.shapes] == [(side, side) for side in sides]
    assert model(torch.rand(2, 1, 48, 48)).shape == (2, 7)


def test_the_input_is_enlarged_bilinearly():
    model = build(image_size=96).eval()
    seen = []
    model.backbone.register_forward_pre_hook(lambda _, arguments: seen.append(arguments[0]))
    images = torch.rand(1, 1, 48, 48)
    model(images)
    expected = torch.nn.Upsample(scale_factor=2, mode="bilinear")(images)
    torch.testing.assert_close(seen[0] * model.std + model.mean, expected)


@pytest.mark.parametrize(
    ("field", "value", "layer"),
    [
        ("se_attention", True, SEModule), ("cbam_attention", True, CbamModule),
        ("coordinate_attention", True, CoordAttn), ("self_attention_heads", 4, Attention),
    ],
)  # fmt: skip
@pytest.mark.parametrize(("fusion_width", "num_maps"), [(0, 1), (32, 4)])
def test_attention_is_timms_and_refines_every_map_that_is_pooled(field, value, layer, fusion_width, num_maps):
    inside = [m for m in build(fusion_width=fusion_width, **{field: value}).attention.modules() if isinstance(m, layer)]
    without = [m for m in build(fusion_width=fusion_width).attention.modules() if isinstance(m, layer)]
    assert (len(inside), len(without)) == (num_maps, 0)


def test_self_attention_tells_the_cells_of_a_map_apart_and_lets_each_see_all():
    model = build(fusion_width=16, self_attention_heads=2).eval()
    layer = model.attention[0].layers[0]
    features = torch.rand(1, 16, 6, 6, requires_grad=True)
    layer(features)[0, :, 0, 0].sum().backward()
    assert bool((features.grad.abs().sum(1) > 0).all())
    constant = layer(torch.ones(1, 16, 6, 6))
    assert not torch.allclose(constant[..., 0, 0], constant[..., 3, 3])


def test_fusion_carries_every_scale_into_every_fused_map():
    fusion = build(fusion_width=16).fusion.eval()
    maps = [torch.rand(1, c, s, s, requires_grad=True) for c, s in ((32, 6), (48, 3), (256, 2))]
    for fused, own in zip(fusion(maps), maps, strict=True):
        assert fused.shape == (1, 16, *own.shape[2:])
        gradients = torch.autograd.grad(fused.sum(), maps, retain_graph=True)
        assert all(float(gradient.abs().sum()) > 0 for gradient in gradients)


def test_pyramid_pooling_gives_the_means_over_its_grids():
    pyramid = build(pyramid_pooling=True, stem_stride=1).pyramid.eval()
    features = torch.rand(2, 256, 6, 6)
    reduced = pyramid.reduce(features)
    found = pyramid(features)
    assert found.shape == (2, 64 * (1 + 4 + 9))
    torch.testing.assert_close(found[:, :64], reduced.mean((2, 3)))
    quarters = reduced.reshape(2, 64, 2, 3, 2, 3).mean((3, 5)).flatten(1)
    torch.testing.assert_close(found[:, 64 : 64 * 5], quarters)
    ninths = reduced.reshape(2, 64, 3, 2, 3, 2).mean((3, 5)).flatten(1)
    torch.testing.assert_close(found[:, 64 * 5 :], ninths)


def test_every_emotion_has_a_head_of_its_own():
    heads = build(emotion_heads_weight=1.0).emotion_heads
    features = torch.rand(1, 256)
    before = heads(features)
    with torch.no_grad():
        heads.hidden.weight[:32] += 1  # the hidden units of the first emotion
    changed = heads(features) != before
    assert changed.tolist() == [[True] + [False] * 6]


def test_all_layers_exist_before_the_first_face_is_seen():
    model = build(**FULL)
    before = [name for name, _ in model.named_parameters()]
    model.outputs(torch.rand(4, 1, 48, 48))
    assert [name for name, _ in model.named_parameters()] == before


@pytest.mark.parametrize("backbone", ["test_efficientnet", "test_resnet", "mobilenetv3_small_050", "densenet121"])
@pytest.mark.parametrize("parts", [{}, FULL])
def test_every_parameter_of_every_backbone_receives_a_gradient(backbone, parts):
    drop_path = 0.0 if backbone == "densenet121" else 0.1
    model = build(backbone=backbone, stem_stride=1, drop_path=drop_path, **parts).eval()
    outputs = model.outputs(torch.rand(4, 1, 48, 48))
    each = [outputs.logits, *outputs.auxiliary_logits]
    if outputs.emotion_logits is not None:
        each.append(outputs.emotion_logits)
    sum((logits**2).sum() for logits in each).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None] == []


@pytest.mark.parametrize("part", FULL)
@pytest.mark.parametrize("others", [{"stem_stride": 1}, {"stem_stride": 2, "fusion_width": 32}])
def test_every_part_has_a_say_in_the_loss_and_all_but_the_heads_in_the_logits(part, others):
    recipe = settings(**{**others, "dropout": 0.0, part: FULL[part]})
    absent = build(**{**others, part: PLAIN[part]}).state_dict()
    model = build_model(recipe)  # in training, where batch norm keeps what it is given from fading
    images, targets = batch(4)
    generator = torch.Generator().manual_seed(2)
    own = [parameter for name, parameter in model.named_parameters() if name not in absent]
    assert own
    with torch.no_grad():
        logits, loss = model(images), loss_of(model, images, targets, recipe)
        for parameter in own:
            parameter += torch.randn(parameter.shape, generator=generator)
        assert not torch.isclose(loss_of(model, images, targets, recipe), loss)
        assert torch.equal(model(images), logits) == (part in HEADS)


ALONE = [{part: value} for part, value in FULL.items()]


@pytest.mark.parametrize("stem_stride", [1, 2])
@pytest.mark.parametrize("parts", [{}, *ALONE, FULL], ids=["none", *FULL, "all"])
def test_every_parameter_is_moved_by_the_loss_whichever_parts_are_on(parts, stem_stride):
    if parts == {"pyramid_pooling": True} and stem_stride == 2:
        parts = {**parts, "image_size": 96}  # for a final map of 3 x 3 cells
    if parts == FULL:
        parts = {**parts, "fusion_width": 128}  # of 32 channels CBAM makes two hidden units, which can both be dead
    recipe = settings(**parts, stem_stride=stem_stride, label_smoothing=0.1)
    model = build_model(recipe)
    images, targets = batch(8)
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for _ in range(3):
        optimizer.zero_grad()
        loss_of(model, images, targets, recipe).backward()
        optimizer.step()
    assert [name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])] == []


def test_the_logits_of_training_are_those_of_prediction():
    model = build(**FULL).eval()
    images = torch.rand(3, 1, 48, 48)
    outputs = model.outputs(images)
    torch.testing.assert_close(outputs.logits, model(images))
    assert outputs.emotion_logits.shape == (3, 7)
    assert [logits.shape for logits in outputs.auxiliary_logits] == [(3, 7), (3, 7)]


def test_the_weights_follow_from_the_seed_and_nothing_else():
    torch.manual_seed(1)
    first = build(**FULL).state_dict()
    torch.manual_seed(2)
    second, other = build(**FULL).state_dict(), build(**FULL, seed=1).state_dict()
    assert all(torch.equal(value, second[name]) for name, value in first.items())
    for name in ("backbone.network.conv_stem.weight", "classifier.weight", "fusion.lateral.0.conv.weight"):
        assert not torch.equal(first[name], other[name])


def test_dropout_and_drop_path_reach_the_network():
    model = build(backbone="test_resnet", dropout=0.35, drop_path=0.21)
    assert model.dropout.p == 0.35
    rates = [m.drop_prob for m in model.modules() if type(m).__name__ == "DropPath"]
    assert 0 < max(rates) <= 0.21


def test_an_unknown_backbone_is_named_with_the_nearest_one():
    with pytest.raises(
        InvalidInput, match=r"backbone: must be the name of a timm model \(did you mean 'efficientnet_b0'"
    ):
        build(backbone="eficientnet_b0")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"backbone": "mixer_s16_224"}, ""),
        ({"backbone": "convnext_atto"}, "does not begin with an ordinary convolution"),
    ],
)
def test_a_backbone_that_cannot_take_the_settings_is_refused_with_the_reason(changes, reason):
    with pytest.raises(InvalidInput, match=f"backbone: must .*{reason}"):
        build(**changes)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"backbone": "vgg11", "output_stride": 8},
            "output_stride: must be 32 for vgg11, which does not have it, got 8",
        ),
        ({"backbone": "densenet121", "drop_path": 0.2}, "drop_path: must be 0.0 for densenet121"),
        ({"backbone": "test_efficientnet", "drop_path": 0.2}, "drop_path: must be 0.0 for test_efficientnet"),
        ({"pyramid_pooling": True}, "pyramid_pooling: must be false for a map of 2 x 2 cells"),
    ],
)
def test_a_setting_that_the_backbone_does_not_have_is_named(changes, message):
    with pytest.raises(InvalidInput, match=f"recipe: {message}"):
        build(**changes)


def test_a_network_can_be_built_where_gradients_are_off():
    with torch.no_grad():
        assert build(fusion_width=16)(torch.rand(2, 1, 48, 48)).shape == (2, 7)


def test_the_summary_adds_up_and_counts_a_convolution_as_by_hand():
    recipe = Recipe().replace({**PLAIN, **FULL})
    summary = summarize(recipe)
    model = build_model(recipe)
    assert summary.total.num_parameters == sum(p.numel() for p in model.parameters())
    parts = {part.name: part for part in summary.parts}
    assert set(parts) == {
        "backbone", "fusion", "attention", "pyramid", "classifier", "emotion_heads", "auxiliary",
    }  # fmt: skip
    assert parts["classifier"].flops == 2 * model.classifier.in_features * 7
    assert parts["pyramid"].flops == 2 * 32 * 64 * 6 * 6
    assert parts["emotion_heads"].flops == parts["auxiliary"].flops == 0  # in training alone
    assert summary.maps == [(32, 6, 6), (48, 3, 3), (256, 2, 2)]
