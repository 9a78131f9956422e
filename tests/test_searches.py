from pathlib import Path

import torch

from fer_search.recipe import Recipe
from fer_search.searches import expected_trials, prepare, preview
from fer_search.training.model import build_model
from fer_search.tuning.run import Resources

SMOKE = Path(__file__).parent.parent / "search_spaces" / "smoke.toml"


def plan(**settings):
    return prepare(SMOKE, data="synthetic", overrides={"epochs": 27, "fit_fraction": 0.2, **settings}, num_trials=81)


def test_a_third_goes_on_at_every_rung_and_three_trials_at_least_reach_the_horizon():
    assert expected_trials(plan().space) == {1: 81, 3: 27, 9: 9, 27: 3}
    assert expected_trials(prepare(SMOKE, data="synthetic", overrides=None, num_trials=4).space) == {1: 4, 3: 3, 9: 3}


def test_a_preview_counts_epochs_and_sizes_checkpoints_without_leaving_anything(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    expected = preview(plan(), device=torch.device("cpu"), threads=Resources().cpus)
    assert expected.epochs == 81 * 1 + 27 * 2 + 9 * 6 + 3 * 18
    assert expected.hours == expected.epochs * expected.seconds_per_epoch / 3600
    assert expected.seconds_per_epoch > 0
    weights = sum(4 * each.numel() for each in build_model(Recipe.build(plan().space.parameters)).parameters())
    assert expected.checkpoint_bytes > weights
    assert list(tmp_path.iterdir()) == []
