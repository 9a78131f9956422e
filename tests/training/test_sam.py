import copy

import pytest
import torch
from torch import nn

from fer_search.training.sam import SharpnessAwareMinimizer, batch_norms, frozen


def quadratic(weight, curvature):
    """Loss 0.5 * w' diag(c) w, whose gradient is c * w."""

    def backward(first_pass):
        loss = 0.5 * (curvature * weight**2).sum()
        loss.backward()
        return loss.detach()

    return backward


def test_a_sam_step_on_a_quadratic_equals_the_hand_computed_one():
    curvature = torch.tensor([1.0, 4.0])
    weight = nn.Parameter(torch.tensor([3.0, 1.0]))
    sam = SharpnessAwareMinimizer(torch.optim.SGD([weight], lr=0.1), rho=0.5)
    loss, norm = sam.step(quadratic(weight, curvature))
    # gradient (3, 4), its norm 5, climb 0.5 * (0.6, 0.8) = (0.3, 0.4), gradient there (3.3, 5.6)
    assert torch.allclose(weight.detach(), torch.tensor([3.0 - 0.33, 1.0 - 0.56]))
    assert float(loss) == pytest.approx(0.5 * (9 + 4))
    assert float(norm) == pytest.approx((3.3**2 + 5.6**2) ** 0.5)


def test_an_adaptive_step_scales_the_climb_by_each_weight():
    curvature = torch.tensor([1.0, 4.0])
    weight = nn.Parameter(torch.tensor([3.0, 1.0]))
    sam = SharpnessAwareMinimizer(torch.optim.SGD([weight], lr=0.1), rho=0.5, adaptive=True)
    sam.step(quadratic(weight, curvature))
    # |w| g = (9, 4), its norm sqrt(97), climb 0.5 * w^2 g / sqrt(97) = 0.5 * (27, 4) / sqrt(97)
    climb = 0.5 * torch.tensor([27.0, 4.0]) / 97**0.5
    expected = torch.tensor([3.0, 1.0]) - 0.1 * curvature * (torch.tensor([3.0, 1.0]) + climb)
    assert torch.allclose(weight.detach(), expected)


@pytest.mark.parametrize("base", [torch.optim.SGD, torch.optim.AdamW])
def test_rho_zero_is_the_base_optimizer_bit_for_bit(base):
    torch.manual_seed(0)
    ours = nn.Linear(5, 3)
    theirs = copy.deepcopy(ours)
    sam = SharpnessAwareMinimizer(base(ours.parameters(), lr=0.1), rho=0.0)
    reference = base(theirs.parameters(), lr=0.1)
    for _ in range(5):
        x = torch.randn(4, 5)

        def backward(first_pass, x=x):
            loss = ours(x).square().mean()
            loss.backward()
            return loss.detach()

        sam.step(backward)
        reference.zero_grad()
        theirs(x).square().mean().backward()
        reference.step()
    assert all(torch.equal(a, b) for a, b in zip(ours.parameters(), theirs.parameters(), strict=True))


def test_gradients_are_clipped_to_the_global_norm_of_the_second_pass():
    weight = nn.Parameter(torch.tensor([3.0, 1.0]))
    sam = SharpnessAwareMinimizer(torch.optim.SGD([weight], lr=1.0), rho=0.5)
    sam.step(quadratic(weight, torch.tensor([1.0, 4.0])), max_norm=0.1)
    step = torch.tensor([3.0, 1.0]) - weight.detach()
    assert torch.allclose(step, 0.1 * torch.tensor([3.3, 5.6]) / (3.3**2 + 5.6**2) ** 0.5, atol=1e-5)


def test_an_exception_in_the_second_pass_leaves_the_weights_unperturbed():
    weight = nn.Parameter(torch.tensor([3.0, 1.0]))
    before = weight.detach().clone()
    sam = SharpnessAwareMinimizer(torch.optim.SGD([weight], lr=0.1), rho=0.5)
    inner = quadratic(weight, torch.ones(2))

    def backward(first_pass):
        if not first_pass:
            assert not torch.equal(weight.detach(), before)
            raise RuntimeError("out of memory")
        return inner(first_pass)

    with pytest.raises(RuntimeError, match="out of memory"):
        sam.step(backward)
    assert torch.equal(weight.detach(), before)


def test_batch_norm_statistics_stand_still_while_frozen_and_move_again_after():
    layer = nn.BatchNorm2d(2)
    images = torch.randn(8, 2, 4, 4) + 3
    for _ in range(2):  # twice, since switching the momentum off twice would lose it
        before = layer.running_mean.clone(), layer.num_batches_tracked.clone()
        with frozen(batch_norms(layer)):
            still = layer(images)
        assert torch.equal(layer.running_mean, before[0])
        assert torch.equal(layer.num_batches_tracked, before[1])
    assert torch.allclose(still, layer(images))
    assert torch.allclose(layer.running_mean, 0.1 * images.mean((0, 2, 3)))


def test_a_cheap_step_turns_its_gradient_towards_the_flat_direction_as_the_paper_says():
    """LookSAM, algorithm 1, by hand: the part of SAM's gradient across the plain one, rescaled to the new gradient."""
    curvature = torch.tensor([1.0, 4.0])
    weight = nn.Parameter(torch.tensor([3.0, 1.0]))
    sam = SharpnessAwareMinimizer(torch.optim.SGD([weight], lr=0.1), rho=0.5, remember=True)
    sam.step(quadratic(weight, curvature))
    plain, sharp = torch.tensor([3.0, 4.0]), torch.tensor([3.3, 5.6])
    flat = sharp - (sharp @ plain) / 25 * plain
    assert float(flat @ plain) == pytest.approx(0, abs=1e-5)
    before = weight.detach().clone()
    gradient = curvature * before
    calls = []

    def backward(first_pass):
        calls.append(first_pass)
        return quadratic(weight, curvature)(first_pass)

    sam.step(backward, cheap=True)
    expected = gradient + 0.7 * gradient.norm() / flat.norm() * flat
    assert calls == [True]
    torch.testing.assert_close(weight.detach(), before - 0.1 * expected)


def test_remembering_for_cheap_steps_leaves_full_steps_as_they_are():
    weights = []
    for remember in (False, True):
        weight = nn.Parameter(torch.tensor([3.0, 1.0]))
        sam = SharpnessAwareMinimizer(torch.optim.SGD([weight], lr=0.1), rho=0.5, remember=remember)
        for _ in range(3):
            sam.step(quadratic(weight, torch.tensor([1.0, 4.0])))
        weights.append(weight.detach())
    assert torch.equal(*weights)
