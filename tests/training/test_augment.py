import numpy as np
import pytest
import torch
import torch.nn.functional as F
from timm.data.mixup import mixup_target
from torchvision.transforms.v2 import functional as reference

from fer_search.recipe import Recipe
from fer_search.training import augment as ours


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(faces):
    return torch.tensor(faces.pixels[:6]).unsqueeze(1) / 255


NO_SHIFT = torch.zeros(6, 2)


def amounts(**given):
    return {name: torch.full((6,), given.get(name, 0.0)) for name in ours.OPERATIONS}


@pytest.mark.parametrize(
    ("given", "affine"),
    [
        ({"rotate": 0.5}, {"angle": 15.0}),
        ({"rotate": -1.0}, {"angle": -30.0}),
        ({"shear_x": 0.6}, {"shear": [np.degrees(np.arctan(0.18)), 0.0]}),
        ({"shear_y": -0.6}, {"shear": [0.0, np.degrees(np.arctan(-0.18))]}),
        ({"translate_x": 0.25}, {"translate": [3, 0]}),
        ({"translate_y": -0.5}, {"translate": [0, -6]}),
    ],
)
def test_geometry_equals_torchvisions_affine(images, given, affine):
    settings = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **affine}
    expected = reference.affine(images, interpolation=reference.InterpolationMode.BILINEAR, **settings)
    torch.testing.assert_close(ours.warp(images, amounts(**given), NO_SHIFT), expected, atol=2e-5, rtol=0)


def test_a_shift_moves_whole_pixels_and_lets_black_in(images):
    shifted = ours.warp(images, {}, torch.tensor([[2.0, -3.0]]).expand(6, 2))
    expected = torch.zeros_like(images)
    expected[..., :-3, 2:] = images[..., 3:, :-2]
    torch.testing.assert_close(shifted, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0.1, 0.7, 1.0, 1.9])
@pytest.mark.parametrize("name", ["brightness", "contrast", "sharpness"])
def test_enhancements_equal_torchvisions(images, name, factor):
    found = getattr(ours, f"adjust_{name}")(images, torch.full((6,), factor))
    expected = getattr(reference, f"adjust_{name}")(images, factor)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bits", [4, 6])
def test_posterize_equals_torchvisions(images, bits):
    torch.testing.assert_close(ours.posterize(images, torch.full((6,), float(bits))), reference.posterize(images, bits))


def test_eight_bits_change_nothing(images):
    assert torch.equal(ours.posterize(images, torch.full((6,), 8.0)), images)


def test_autocontrast_and_equalize_equal_torchvisions_also_on_a_blank_image(images):
    images = torch.cat([images * 0.5 + 0.2, torch.full((1, 1, 48, 48), 0.25)])
    images = (images * 255).round() / 255
    torch.testing.assert_close(ours.autocontrast(images), reference.autocontrast(images), atol=1e-5, rtol=0)
    bytes_ = (images * 255).round().to(torch.uint8)
    torch.testing.assert_close((ours.equalize(images) * 255).round().to(torch.uint8), reference.equalize(bytes_))


def test_each_operation_is_drawn_equally_often_with_both_signs():
    drawn = ours.draw_operations(24_000, 1, 0.5, generator())
    assert set(drawn) == set(ours.OPERATIONS)
    for amount in drawn.values():
        share = float((amount != 0).float().mean())
        assert share == pytest.approx(1 / 12, abs=0.01)  # five standard errors
        assert float((amount > 0).float().sum() / (amount != 0).sum()) == pytest.approx(0.5, abs=0.06)
        assert set(amount.abs().unique().tolist()) == {0.0, 0.5}


def test_flips_happen_as_often_as_asked_and_mirror_left_and_right(images):
    many = images[:1].expand(20_000, 1, 48, 48)
    flipped = ours.random_flip(many, 0.3, generator())
    is_flipped = (flipped == images[:1].flip(-1)).all(dim=(1, 2, 3))
    assert float(is_flipped.float().mean()) == pytest.approx(0.3, abs=0.02)
    assert bool(((flipped == images[:1]).all(dim=(1, 2, 3)) | is_flipped).all())


@pytest.mark.parametrize("switch", ["mixup_alpha", "cutmix_alpha"])
def test_mixing_keeps_images_and_targets_in_step(images, switch):
    """Constant images show their share: an image of ones mixed with zeros has the mean that its target says."""
    off = {"mixup_alpha": 0.0, "cutmix_alpha": 0.0, switch: 1.0, "mix_probability": 1.0}
    labels = torch.arange(64) % 2
    flat = labels.float()[:, None, None, None].expand(64, 1, 48, 48)
    mixed, targets = ours.mix(flat, F.one_hot(labels, 7).float(), Recipe().replace(off), generator())
    torch.testing.assert_close(mixed.mean((1, 2, 3)), targets[:, 1])
    torch.testing.assert_close(targets.sum(1), torch.ones(64))
    assert len(mixed.unique()) > 40 if switch == "mixup_alpha" else mixed.unique().tolist() == [0.0, 1.0]


def test_mixup_targets_equal_timms(images):
    recipe = Recipe().replace({"mixup_alpha": 1.0, "cutmix_alpha": 0.0, "mix_probability": 1.0})
    labels = torch.tensor([3, 5])
    pixels = torch.stack([torch.zeros(1, 48, 48), torch.ones(1, 48, 48)])
    mixed, targets = ours.mix(pixels, F.one_hot(labels, 7).float(), recipe, generator())
    keep = 1 - float(mixed[0].mean())  # the first image is black: what is bright in it came from the second
    expected = mixup_target(labels, 7, lam=keep, smoothing=0.1)  # timm mixes a batch with its mirror
    torch.testing.assert_close(ours.smooth_labels(targets, 0.1)[0], expected[0], atol=1e-5, rtol=0)


@pytest.mark.parametrize("alpha", [0.4, 2.0])
def test_the_kept_share_follows_the_beta_distribution(alpha):
    from scipy.stats import beta, kstest

    drawn = ours._beta(alpha, 5_000, generator()).numpy()
    assert kstest(drawn, beta(alpha, alpha).cdf).pvalue > 1e-3


def test_a_tiny_alpha_keeps_or_replaces_and_never_gives_nan():
    drawn = ours._beta(1e-3, 2_000, generator())
    assert bool(torch.isfinite(drawn).all())


def test_both_mixes_share_the_chance_evenly():
    recipe = Recipe().replace({"mixup_alpha": 1.0, "cutmix_alpha": 1.0, "mix_probability": 0.6})
    labels = torch.arange(4_000) % 2
    flat = labels.float()[:, None, None, None].expand(4_000, 1, 48, 48)
    mixed, _ = ours.mix(flat, F.one_hot(labels, 7).float(), recipe, generator())
    inner = ((mixed > 0.001) & (mixed < 0.999)).any(dim=-1).any(dim=-1).any(dim=-1)  # grey: MixUp
    assert float(inner.float().mean()) == pytest.approx(0.3, abs=0.04)


def test_label_smoothing_equals_torchs():
    logits, labels = torch.randn(9, 7), torch.arange(9) % 7
    targets = ours.smooth_labels(F.one_hot(labels, 7).float(), 0.1)
    torch.testing.assert_close(F.cross_entropy(logits, targets), F.cross_entropy(logits, labels, label_smoothing=0.1))


def test_the_generator_alone_decides_and_images_stay_in_range(faces):
    pixels, labels = torch.tensor(faces.pixels[:33]), torch.tensor(faces.labels[:33])
    first = ours.augment(pixels, labels, Recipe(), generator(1))
    again = ours.augment(pixels, labels, Recipe(), generator(1))
    other = ours.augment(pixels, labels, Recipe(), generator(2))
    assert torch.equal(first[0], again[0])
    assert torch.equal(first[1], again[1])
    assert not torch.equal(first[0], other[0])
    assert first[0].shape == (33, 1, 48, 48)
    assert 0 <= float(first[0].min()) <= float(first[0].max()) <= 1


@pytest.mark.parametrize(
    "changes",
    [
        {"flip_probability": 0.0}, {"shift_pixels": 0}, {"randaugment_magnitude": 3.0}, {"randaugment_operations": 4},
        {"mixup_alpha": 0.0}, {"cutmix_alpha": 0.0}, {"mix_probability": 0.9},
    ],
)  # fmt: skip
def test_every_augmentation_field_changes_the_images(faces, changes):
    pixels, labels = torch.tensor(faces.pixels[:64]), torch.tensor(faces.labels[:64])
    default, _ = ours.augment(pixels, labels, Recipe(), generator())
    changed, _ = ours.augment(pixels, labels, Recipe().replace(changes), generator())
    assert not torch.equal(default, changed)


def test_with_everything_off_only_the_range_changes(faces):
    off = {
        "flip_probability": 0.0, "shift_pixels": 0, "randaugment_magnitude": 0.0,
        "mixup_alpha": 0.0, "cutmix_alpha": 0.0,
    }  # fmt: skip
    pixels, labels = torch.tensor(faces.pixels[:8]), torch.tensor(faces.labels[:8])
    images, targets = ours.augment(pixels, labels, Recipe().replace(off), generator())
    assert torch.equal(images[:, 0], pixels / 255)
    assert torch.equal(targets.argmax(1), labels)
