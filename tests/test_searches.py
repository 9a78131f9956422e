import io
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from rich.console import Console

from fer_search import packings, workflow
from fer_search.errors import InvalidInput
from fer_search.report_stages import packing_table
from fer_search.searches import DiskNeed, prepare, preview
from fer_search.training.checkpoint import checkpoint_bytes
from fer_search.training.trainer import Trainer
from fer_search.tuning.connection import Resources
from fer_search.tuning.expectation import expected_trials

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
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("changes", [{}, {"optimizer": "sgd", "momentum": 0.0}, {"optimizer": "sgd", "ema_decay": 0.0}])
def test_the_size_of_a_checkpoint_is_known_before_there_is_one(small, fit, validation, tmp_path, changes):
    recipe = small.replace({"optimizer": "adamw", "emotion_heads_weight": 0.1, **changes})
    next(iter(Trainer(recipe, fit, validation, device=torch.device("cpu")))).save(tmp_path)
    (file,) = tmp_path.iterdir()
    assert checkpoint_bytes(recipe) == pytest.approx(file.stat().st_size, abs=200_000)


def test_a_search_says_what_its_checkpoints_take_and_warns_where_the_disk_has_less(tmp_path, monkeypatch, caplog):
    """81 trials of which up to 81 wait; two run with two checkpoints and one that is being written."""
    need = DiskNeed.of(plan().space)
    size = need.checkpoint_bytes
    assert need.most(2) == size * (81 + 2 * 2)
    assert DiskNeed.of(replace(plan().space, scheduler="stopping")).most(2) == size * (2 * 3 + 5)
    assert replace(need, trials=3).most(2) == size * (2 * 3 + 1)
    with caplog.at_level("INFO"):
        need.announce(tmp_path, num_workers=2)
    (said,) = caplog.records
    assert (said.levelname, f"at most {85 * size / 1e9:.2f} GB" in said.getMessage()) == ("INFO", True)
    monkeypatch.setattr("shutil.disk_usage", lambda path: SimpleNamespace(free=84 * size))
    need.announce(tmp_path, num_workers=2)
    assert caplog.records[1].levelname == "WARNING"
    assert f"{tmp_path} has only {84 * size / 1e9:.2f} GB" in caplog.records[1].getMessage()
    (tmp_path / "checkpoints").mkdir()
    (tmp_path / "checkpoints" / "there").write_bytes(bytes(size))  # what is taken already is not needed once more
    need.announce(tmp_path, num_workers=2)
    assert len([each for each in caplog.records if each.levelname == "WARNING"]) == 1


def test_a_trial_that_may_have_no_other_beside_it_is_planned_with_all_cores(cluster, monkeypatch):
    monkeypatch.setattr(packings, "SECONDS", 1.0)
    few = {"fit_fraction": 0.05, "validation_fraction": 0.05, "sam_interval": 1}
    found = workflow.plan_packing(SMOKE, overrides=few, resources=Resources(max_concurrent=1))
    assert [(packing.count, packing.resources.cpus) for packing in found.packings] == [(1, 2)]
    rates = [found.images_per_second(packing) for packing in found.packings]
    assert found.chosen is found.packings[rates.index(max(rates))]
    assert rates[0] == found.packings[0].rate * found.images
    console = Console(width=100, file=io.StringIO())
    console.print(packing_table(found))
    (chosen,) = (line for line in console.file.getvalue().splitlines() if "chosen" in line)
    assert f"{max(rates):,.0f}" in chosen


@pytest.mark.parametrize(
    ("resources", "gpus", "named"),
    [
        (Resources(cpus=2), None, ["cpus-per-trial"]),
        (Resources(cpus=1, gpus=0.5), 0.5, ["gpus-per-trial"]),
        (Resources(cpus=4, gpus=1.0), None, []),
        (Resources(cpus=1), 0.0, []),
    ],
)
def test_what_is_measured_must_not_be_given(resources, gpus, named):
    problems = []
    try:
        packings.check_packable(resources, gpus=gpus)
    except InvalidInput as error:
        problems = error.problems
    assert [line.split(": ")[1] for line in problems] == named
