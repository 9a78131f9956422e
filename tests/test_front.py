"""What is shown of a search for a Pareto front, on one that is written by hand: no search runs here."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal
from fer_search.runs import SETTINGS, write_json
from fer_search.spaces import check_space
from fer_search.tuning.connection import Resources

BASE = {"backbone": "test_resnet", "pretrained": False, "stem_stride": 2, "drop_path": 0.0, "epochs": 2}
# Width of the fusion, value at the horizon, and a cost that no network really has.
TRIALS = [(64, 0.5, 2e6), (0, 0.4, 1e6), (96, 0.45, 3e6)]


@pytest.fixture
def search(tmp_path):
    """A search for accuracy at few FLOPs in `tmp_path`/runs."""
    table = {
        "base": BASE,
        "space": {"fusion_width": {"choices": [0, 64, 96], "default": 64}},
        "search": {"num_trials": len(TRIALS), "cost": "flops"},
    }
    space = check_space(table, source=Path("space.toml"))
    directory = tmp_path / "runs" / "s"
    journal = Journal(directory / JOURNAL)
    for number, (width, value, cost) in enumerate(TRIALS):
        point = {"fusion_width": width}
        journal.trial_started(number, space.complete(point), point=point, cost=cost)
        for epoch in (1, 2):
            journal.epoch_ended(number, epoch, {"val_accuracy": value})
        journal.trial_ended(number, "COMPLETE")
    settings = {
        "kind": "search", "search_id": "by-hand", "space_file": "space.toml", "space": table,
        "parameters": space.parameters, "resources": asdict(Resources()), "data": {"num_validation": 100},
    }  # fmt: skip
    write_json(directory / SETTINGS, settings)
    return directory


def test_compare_shows_the_front_with_the_recorded_costs_without_being_asked(search, fer_search):
    code, shown, errors = fer_search("compare", "s")
    assert code == 0, errors
    assert "MFLOPs" in shown
    assert "its networks differ in cost" not in errors
    found = json.loads(fer_search("compare", "s", "--json").stdout)
    assert found["cost"] == "flops"
    assert [(each["trial"], each["cost"], each["on_front"]) for each in found["tradeoffs"]] == [
        (1, 1e6, True), (0, 2e6, True), (2, 3e6, False),
    ]  # fmt: skip


def test_another_cost_is_measured(search, fer_search):
    found = json.loads(fer_search("compare", "s", "--cost", "parameters", "--json").stdout)
    assert found["cost"] == "parameters"
    costs = {each["trial"]: each["cost"] for each in found["tradeoffs"]}
    assert 1e4 < costs[1] < costs[0] < costs[2]
    assert not set(costs.values()) & {cost for _, _, cost in TRIALS}
