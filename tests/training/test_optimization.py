import copy
import math

import pytest
import torch
from torch import nn

from fer_search.errors import InvalidInput
from fer_search.recipe import Recipe
from fer_search.training.optimization import build_optimizer, build_schedule


def recipe_with(**changes):
    settings = {
        "optimizer": "sgd", "max_lr": 0.01, "div_factor": 2.0, "final_div_factor": 1e4, "pct_start": 0.3,
        "momentum": 0.9, "backbone_lr_scale": 1.0,
    }  # fmt: skip
    return Recipe().replace({**settings, **changes})


def rates(recipe, steps_per_epoch):
    optimizer = build_optimizer(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), recipe)
    schedule = build_schedule(optimizer, recipe, steps_per_epoch)
    found = []
    for _ in range(recipe.epochs * steps_per_epoch):
        found.append([group["lr"] for group in optimizer.param_groups])
        optimizer.step()
        schedule.step()
    return found


@pytest.mark.parametrize("pct_start", [0.1, 0.3, 0.7])
def test_the_learning_rate_is_the_one_cycle_formula_at_every_step(pct_start):
    recipe = recipe_with(epochs=5, pct_start=pct_start)
    total = 5 * 7
    peak = pct_start * total - 1

    def cosine(start, end, share):
        return end + (start - end) / 2 * (1 + math.cos(math.pi * share))

    for step, groups in enumerate(rates(recipe, 7)):
        low = 0.01 / 2
        expected = (
            cosine(low, 0.01, step / peak)
            if step <= peak
            else cosine(0.01, low / 1e4, (step - peak) / (total - 1 - peak))
        )
        assert groups == pytest.approx([expected] * len(groups), rel=1e-9)


def test_the_learning_rate_equals_torchs_own_schedule():
    recipe = recipe_with(epochs=4, max_lr=0.2, div_factor=25.0, final_div_factor=100.0)
    reference = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0, momentum=0.9)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        reference, 0.2, epochs=4, steps_per_epoch=9, div_factor=25.0, final_div_factor=100.0
    )
    for groups in rates(recipe, 9):
        assert groups == [reference.param_groups[0]["lr"]] * len(groups)
        reference.step()
        schedule.step()


def test_with_restarts_each_stretch_is_a_whole_one_cycle_of_torch():
    recipe = recipe_with(epochs=9, restarts=[1, 3], max_lr=0.2, div_factor=25.0, final_div_factor=100.0)
    expected = []
    for epochs in (1, 2, 6):
        reference = torch.optim.SGD(nn.Linear(1, 1).parameters(), lr=1.0)
        schedule = torch.optim.lr_scheduler.OneCycleLR(
            reference, 0.2, epochs=epochs, steps_per_epoch=5, div_factor=25.0, final_div_factor=100.0
        )
        for _ in range(epochs * 5):
            expected.append(reference.param_groups[0]["lr"])
            reference.step()
            schedule.step()
    assert [groups[0] for groups in rates(recipe, 5)] == expected
    assert expected[4] == expected[14] == expected[44] == pytest.approx(0.2 / 25 / 100)


@pytest.mark.parametrize("interruption", [3, 4, 5, 6, 14, 15, 16, 30])
def test_a_schedule_with_restarts_goes_on_from_its_state_bit_for_bit(interruption):
    recipe = recipe_with(epochs=9, restarts=[1, 3], backbone_lr_scale=0.5)
    whole = rates(recipe, 5)

    def begin():
        optimizer = build_optimizer(nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2)), recipe)
        return optimizer, build_schedule(optimizer, recipe, 5)

    optimizer, schedule = begin()
    for _ in range(interruption):
        optimizer.step()
        schedule.step()
    stored = copy.deepcopy((optimizer.state_dict(), schedule.state_dict()))
    optimizer, schedule = begin()
    optimizer.load_state_dict(stored[0])
    schedule.load_state_dict(stored[1])
    for expected in whole[interruption:]:
        assert [group["lr"] for group in optimizer.param_groups] == expected
        optimizer.step()
        schedule.step()


def test_the_shortest_cycle_must_have_room_to_rise():
    recipe = recipe_with(epochs=9, restarts=[1, 3])
    with pytest.raises(InvalidInput, match=r"pct_start: must cover more than one of the shortest cycle's 3 optimizer"):
        build_schedule(build_optimizer(nn.Linear(1, 1), recipe), recipe, 3)


def test_momentum_stays_what_the_recipe_says():
    optimizer = build_optimizer(nn.Linear(2, 2), recipe_with(optimizer="adamw", momentum=0.8))
    schedule = build_schedule(optimizer, recipe_with(epochs=3), 5)
    for _ in range(7):
        optimizer.step()
        schedule.step()
    assert all(group["betas"] == (0.8, 0.999) for group in optimizer.param_groups)


def test_norms_and_biases_get_no_weight_decay():
    model = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
    optimizer = build_optimizer(model, recipe_with(weight_decay=0.1))
    decay = {id(p): group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decay == {id(p): 0.1 if p.ndim == 2 else 0.0 for p in model.parameters()}


def test_a_rising_part_of_less_than_two_steps_is_refused_before_torch_divides_by_zero():
    recipe = recipe_with(epochs=1, pct_start=0.1)
    with pytest.raises(InvalidInput, match=r"pct_start: must cover more than one of the run's 10 optimizer steps"):
        build_schedule(build_optimizer(nn.Linear(1, 1), recipe), recipe, 10)


def test_the_backbone_has_its_share_of_the_learning_rate_at_every_step():
    """Against torch's own schedule over two groups."""
    model = nn.ModuleDict({"backbone": nn.Linear(2, 2, bias=False), "classifier": nn.Linear(2, 2, bias=False)})
    recipe = recipe_with(epochs=4, backbone_lr_scale=0.1, max_lr=0.2)
    optimizer = build_optimizer(model, recipe)
    schedule = build_schedule(optimizer, recipe, 9)
    groups = [{"params": model[name].parameters()} for name in ("classifier", "backbone")]
    reference = torch.optim.SGD(groups, lr=1.0)
    theirs = torch.optim.lr_scheduler.OneCycleLR(
        reference, [0.2, 0.02], total_steps=36, div_factor=2.0, final_div_factor=1e4, cycle_momentum=False
    )
    for _ in range(36):
        ours = {id(p): group["lr"] for group in optimizer.param_groups for p in group["params"]}
        expected = {id(p): group["lr"] for group in reference.param_groups for p in group["params"]}
        assert ours == pytest.approx(expected)
        for step in (optimizer, reference, schedule, theirs):
            step.step()
    assert optimizer.param_groups[0]["params"][0] is model["classifier"].weight  # whose rate is reported
