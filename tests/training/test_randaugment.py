import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as reference

from fer_search.training import randaugment


def generator(seed=0):
    return torch.Generator().manual_seed(seed)


@pytest.fixture
def images(faces):
    return torch.tensor(faces.pixels[:6]).unsqueeze(1) / 255


NO_SHIFT = torch.zeros(6, 2)


def amounts(**given):
    return {name: torch.full((6,), given.get(name, 0.0)) for name in randaugment.OPERATIONS}


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
    torch.testing.assert_close(randaugment.warp(images, amounts(**given), NO_SHIFT), expected, atol=2e-5, rtol=0)


@pytest.mark.parametrize(
    ("given", "affine"),
    [
        ({"rotate": 0.5}, {"angle": 15.0}),
        ({"shear_x": 0.6}, {"shear": [np.degrees(np.arctan(0.18)), 0.0]}),
        ({"shear_y": 0.6}, {"shear": [0.0, np.degrees(np.arctan(0.18))]}),
    ],
)
def test_geometry_equals_torchvisions_on_an_image_that_is_not_square(images, given, affine):
    settings = {"angle": 0.0, "translate": [0, 0], "scale": 1.0, "shear": [0.0, 0.0], **affine}
    tall = images[..., :32]
    expected = reference.affine(tall, interpolation=reference.InterpolationMode.BILINEAR, **settings)
    torch.testing.assert_close(randaugment.warp(tall, amounts(**given), NO_SHIFT), expected, atol=2e-5, rtol=0)


def test_a_shift_moves_whole_pixels_and_lets_black_in(images):
    shifted = randaugment.warp(images, {}, torch.tensor([[2.0, -3.0]]).expand(6, 2))
    expected = torch.zeros_like(images)
    expected[..., :-3, 2:] = images[..., 3:, :-2]
    torch.testing.assert_close(shifted, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("factor", [0.1, 0.7, 1.0, 1.9])
@pytest.mark.parametrize("name", ["brightness", "contrast", "sharpness"])
def test_enhancements_equal_torchvisions(images, name, factor):
    found = getattr(randaugment, f"adjust_{name}")(images, torch.full((6,), factor))
    expected = getattr(reference, f"adjust_{name}")(images, factor)
    torch.testing.assert_close(found, expected, atol=1e-5, rtol=0)


@pytest.mark.parametrize("bits", [4, 6])
def test_posterize_equals_torchvisions(images, bits):
    torch.testing.assert_close(
        randaugment.posterize(images, torch.full((6,), float(bits))), reference.posterize(images, bits)
    )


def test_eight_bits_change_nothing(images):
    assert torch.equal(randaugment.posterize(images, torch.full((6,), 8.0)), images)


def test_autocontrast_and_equalize_equal_torchvisions_also_on_a_blank_image(images):
    images = torch.cat([images * 0.5 + 0.2, torch.full((1, 1, 48, 48), 0.25)])
    images = (images * 255).round() / 255
    torch.testing.assert_close(randaugment.autocontrast(images), reference.autocontrast(images), atol=1e-5, rtol=0)
    bytes_ = (images * 255).round().to(torch.uint8)
    torch.testing.assert_close((randaugment.equalize(images) * 255).round().to(torch.uint8), reference.equalize(bytes_))


def test_each_operation_is_drawn_equally_often_with_both_signs():
    drawn = randaugment.draw_operations(torch.ones(24_000), 1, 0.5, generator())
    assert set(drawn) == set(randaugment.OPERATIONS)
    for amount in drawn.values():
        share = float((amount != 0).float().mean())
        assert share == pytest.approx(1 / 12, abs=0.01)  # five standard errors
        assert float((amount > 0).float().sum() / (amount != 0).sum()) == pytest.approx(0.5, abs=0.06)
        assert set(amount.abs().unique().tolist()) == {0.0, 0.5}


def test_an_image_gets_as_many_different_operations_as_asked_and_none_beyond_its_strength():
    drawn = torch.stack(list(randaugment.draw_operations(torch.ones(2_000), 8, 1.0, generator()).values()))
    assert (drawn != 0).sum(0).unique().tolist() == [8]
    assert float(drawn.abs().max()) == 1.0


def test_each_image_gets_operations_with_its_own_chance():
    chance = torch.tensor([0.0, 0.3, 0.9, 1.0]).repeat(10_000)
    drawn = torch.stack(list(randaugment.draw_operations(chance, 1, 0.5, generator()).values()))
    touched = (drawn != 0).any(0).view(10_000, 4).float().mean(0)
    torch.testing.assert_close(touched, chance[:4], atol=0.02, rtol=0)
    assert touched[0] == 0
    assert touched[3] == 1
