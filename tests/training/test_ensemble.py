"""Networks that are asked together, against their own answers put together by hand."""

import pytest
import torch
from torch import nn

from fer_search.training.ensemble import EnsembleNet
from fer_search.training.views import VIEW_SETS, VIEWS, PredictionNet


@pytest.fixture(scope="module")
def networks():
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(2)
        return [nn.Sequential(nn.Flatten(), nn.Linear(64, 5)) for _ in range(3)]


def test_its_probabilities_are_the_weighted_mean_of_its_members_at_their_temperatures(networks):
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    ensemble = EnsembleNet(networks, counts=[3, 1, 2], temperatures=[0.5, 1.0, 2.0])
    with torch.no_grad():
        one, two, three = (network(images).double() for network in networks)
        expected = (3 * (one / 0.5).softmax(1) + two.softmax(1) + 2 * (three / 2).softmax(1)) / 6
        torch.testing.assert_close(ensemble(images).double().softmax(1), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("views", VIEW_SETS)
def test_views_and_a_temperature_of_the_whole_come_on_top(networks, views):
    images = torch.rand(6, 1, 8, 8, generator=torch.Generator().manual_seed(1))
    ensemble = EnsembleNet(networks, counts=[1, 1, 1], temperatures=[1.0, 1.0, 1.0])
    prediction = PredictionNet(ensemble, views=VIEW_SETS[views], temperature=1.7)
    with torch.no_grad():
        each = [network(VIEWS[view](images)).double().softmax(1) for network in networks for view in VIEW_SETS[views]]
        powers = torch.stack(each).mean(0) ** (1 / 1.7)
        found = prediction(images).double().softmax(1)
    torch.testing.assert_close(found, powers / powers.sum(1, keepdim=True), rtol=1e-5, atol=1e-6)


def test_an_answer_that_is_sure_stays_finite(networks):
    with torch.no_grad():
        images = torch.full((1, 1, 8, 8), 1e4)
        assert torch.isfinite(EnsembleNet(networks[:2], counts=[1, 1], temperatures=[0.05, 1.0])(images)).all()
