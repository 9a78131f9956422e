"""Weights that are averaged, and the trainings that may be."""

import copy

import numpy as np
import pytest
import torch
from torch import nn

from fer_search.training.augment import augment
from fer_search.training.model import build_model
from fer_search.training.pretrained import initial_model
from fer_search.training.soup import greedy_soup, mean_of, merit_of, origin, renew_statistics

CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def recipe(small):
    return small.replace(
        {"backbone": "test_resnet", "fusion_width": 8, "drop_path": 0.0, "dropout": 0.0, "seed": 3, "weights_seed": 7}
    )


@pytest.fixture(scope="module")
def trained(recipe, fit, validation, knowing):
    network = build_model(recipe)
    network.load_state_dict(knowing(recipe, fit, validation))
    return network.eval()


def test_seeds_that_share_their_first_weights_begin_at_the_same_ones_and_draw_all_else_apart(recipe):
    first = build_model(recipe).state_dict()
    for seed, same in ((4, True), (5, True)):
        other = build_model(recipe.replace({"seed": seed})).state_dict()
        assert all(torch.equal(value, other[name]) for name, value in first.items()) == same
    alone = build_model(recipe.replace({"weights_seed": 0, "seed": 7})).state_dict()
    assert all(torch.equal(value, alone[name]) for name, value in first.items())
    assert not torch.equal(
        build_model(recipe.replace({"weights_seed": 0})).classifier.weight, build_model(recipe).classifier.weight
    )


@pytest.mark.parametrize(
    "changes",
    [
        {"seed": 9}, {"max_lr": 0.001}, {"dropout": 0.4}, {"epochs": 9}, {"mixup_alpha": 0.1}, {"weights_seed": 8},
        {"backbone": "test_efficientnet"}, {"fusion_width": 16}, {"se_attention": True}, {"pyramid_pooling": True},
        {"emotion_heads_weight": 0.3}, {"auxiliary_weight": 0.3}, {"self_attention_heads": 2}, {"stem_stride": 1},
        {"output_stride": 16}, {"image_size": 64}, {"coordinate_attention": True}, {"cbam_attention": True},
    ],
    ids=lambda changes: next(iter(changes)),
)  # fmt: skip
def test_trainings_have_one_origin_exactly_where_they_begin_as_the_same_function(recipe, changes):
    """Judged by the untrained networks' weights and answers."""
    other = recipe.replace(changes)
    ours, theirs = initial_model(recipe).eval(), initial_model(other).eval()
    images = torch.rand(2, 1, 48, 48, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        same = ours.state_dict().keys() == theirs.state_dict().keys() and torch.equal(ours(images), theirs(images))
    assert (origin(recipe) == origin(other)) == same


def test_every_weight_of_a_mean_is_the_mean_of_that_weight(recipe):
    states = [build_model(recipe.replace({"weights_seed": seed})).state_dict() for seed in (1, 2, 3)]
    states[1]["backbone.network.bn1.num_batches_tracked"] = torch.tensor(99)
    mean = mean_of(states)
    assert mean.keys() == states[0].keys()
    for name, value in mean.items():
        if value.is_floating_point():
            expected = (states[0][name].double() + states[1][name] + states[2][name]) / 3
            torch.testing.assert_close(value.double(), expected, rtol=0, atol=1e-6)
        else:
            assert torch.equal(value, states[0][name])
        assert value.dtype == states[0][name].dtype


def test_batch_statistics_are_those_of_the_augmented_images_that_reach_the_first_layer(recipe, trained, fit):
    network = copy.deepcopy(trained)
    random_state = torch.get_rng_state()
    renew_statistics(network, fit, recipe, device=CPU)
    assert torch.equal(torch.get_rng_state(), random_state)
    order = torch.randperm(len(fit), generator=torch.Generator().manual_seed(recipe.seed)).numpy()
    pixels, labels = torch.tensor(fit.pixels[order]), torch.tensor(fit.labels[order])
    images, _ = augment(pixels, labels, fit.classes, recipe, torch.Generator().manual_seed(recipe.seed))
    with torch.no_grad():
        reached = network.backbone.network.conv1((images - network.mean) / network.std)
    layer = network.backbone.network.bn1
    torch.testing.assert_close(layer.running_mean, reached.mean((0, 2, 3)), rtol=1e-3, atol=1e-4)
    torch.testing.assert_close(layer.running_var, reached.var((0, 2, 3)), rtol=1e-3, atol=1e-4)
    assert not network.training
    assert all(
        torch.equal(ours, theirs) for ours, theirs in zip(network.parameters(), trained.parameters(), strict=True)
    )


def test_the_greedy_soup_keeps_what_makes_the_mean_no_worse_and_leaves_the_rest(
    recipe, trained, fit, validation, misled
):
    state = trained.state_dict()
    one, opposite, astray = (misled(state, seed=s, scale=scale) for s, scale in ((1, 1.2), (1, -1.2), (2, 60)))
    network = copy.deepcopy(trained)

    def merit(states):
        network.load_state_dict(mean_of(states))
        if len(states) > 1:
            renew_statistics(network, fit, recipe, device=CPU)
        return merit_of(network, validation, device=CPU)

    soup = copy.deepcopy(trained)
    tastes = greedy_soup(soup, [one, astray, opposite], recipe, fit=fit, validation=validation, device=CPU)
    assert [taste.merit for taste in tastes] == [merit([one]), merit([one, astray]), merit([one, opposite])]
    assert [taste.kept for taste in tastes] == [True, False, True]
    assert tastes[2].merit > tastes[0].merit > tastes[1].merit
    for ours, theirs in zip(soup.parameters(), trained.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-5)  # the mean of opposite ways is where they began
    assert merit_of(soup, validation, device=CPU) == tastes[2].merit
    assert not soup.training


def test_a_merit_is_accuracy_first_and_likelihood_at_a_tie(trained, validation):
    from sklearn.metrics import accuracy_score

    found = merit_of(trained, validation, device=CPU)
    with torch.no_grad():
        logits = trained(torch.tensor(validation.pixels[:, None] / 255, dtype=torch.float32)).double()
    assert found.accuracy == accuracy_score(validation.labels, logits.argmax(1))
    losses = [
        nn.functional.cross_entropy(logits / t, torch.tensor(validation.labels)) for t in np.geomspace(0.05, 20, 900)
    ]
    assert -found.log_likelihood == pytest.approx(float(min(losses)), abs=1e-4)
