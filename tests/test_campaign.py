"""The FER2013 campaign: its steps can be typed, and its table says what lies on disk. Nothing is trained here."""

import runpy
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import binomtest

from fer_search.data.faces import EMOTIONS
from fer_search.journal import FILE_NAME as JOURNAL
from fer_search.journal import Journal
from fer_search.recipe import Recipe
from fer_search.runs import LOGITS, RESULT, SETTINGS, write_json
from fer_search.searches import read_space
from fer_search.training.measurement import ViewChoice, figures_of

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from campaign_plan import work
from campaign_steps import BUDGETS, NUM_RANKED, first_steps, later_steps, spread, write_space
from campaign_table import read_rows, results

TESTS = Path(__file__).parent
SMALL = {"backbone": "test_efficientnet", "pretrained": False, "stem_stride": 2, "fusion_width": 0}
NUM_PUBLIC = 200


@pytest.mark.parametrize("budget", BUDGETS.values(), ids=BUDGETS)
def test_every_step_is_a_command_line_and_its_space_is_valid(budget, tmp_path):
    mistake = runpy.run_path(str(TESTS / "test_docs.py"))["mistake"]
    steps = [*first_steps(budget, data="d.csv", runs=tmp_path), *later_steps(budget, [3], data="d.csv", runs=tmp_path)]
    assert [found for step in steps if (found := mistake(list(step.words)))] == []
    assert {step.needs for step in steps} <= {None, *(step.name for step in steps)}
    write_space(budget, tmp_path / "space.toml")
    _, space = read_space(tmp_path / "space.toml", overrides=None, num_trials=None)
    assert (space.horizon, space.num_trials) == (budget.horizon, budget.trials)
    reached = budget.trials if budget.first_rung is None else budget.trials // space.eta
    assert reached >= NUM_RANKED


def test_the_plan_counts_the_epochs_of_every_step():
    budget = BUDGETS["full"]
    runs = Path("r")
    steps = [*first_steps(budget, data="d", runs=runs), *later_steps(budget, [3], data="d", runs=runs)]
    epochs = {step.name: work(step, budget)[1] for step in steps}
    assert (epochs["default_short"], epochs["scratch"], epochs["retrain"], epochs["retrain_3"]) == (14, 300, 900, 300)
    assert epochs["search"] == 90 * 10 + 30 * 20
    assert (epochs["race"], epochs["noise"], epochs["soup"]) == (6 * 6 * 30, 5 * 30, 0)


def test_the_ranked_trials_are_spread_over_the_leaderboard_and_the_winner_is_not_among_them():
    assert spread(list(range(20)), without=0, count=7) == [1, 4, 7, 10, 13, 16, 19]
    assert spread([5, 3, 8], without=3, count=7) == [5, 8]


@pytest.fixture(scope="module")
def labels():
    return np.random.default_rng(0).integers(0, 7, NUM_PUBLIC)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, labels):
    """Two trainings of the default recipe and a variant that is right about three quarters, a half and all of it."""
    runs = tmp_path_factory.mktemp("campaign")
    choice = ViewChoice("tta", {"plain": 1.0, "tta": 1.0}, {}, {})
    for name, num_wrong, changes in (
        ("default_short", 50, {"epochs": 2}), ("length_3", 40, {"epochs": 3}), ("default_long", 30, {"epochs": 5}),
        ("standard", 12, {"epochs": 5, "drop_test_duplicates": False}),
    ):  # fmt: skip
        predicted = np.where(np.arange(NUM_PUBLIC) < num_wrong, (labels + 1) % 7, labels)
        logits = dict.fromkeys(("plain", "tta"), 3 * np.eye(7, dtype=np.float32)[predicted])
        figures = figures_of(logits, labels, EMOTIONS, choice)
        result = {
            "recipe": Recipe().replace({**SMALL, **changes}).model_dump(),
            "prediction": {**asdict(choice), "tau": -0.3 if name == "standard" else 0.0},
            "metrics": dict.fromkeys(("validation", "public"), figures),
            "data": {"num_fit": 100},
            "trained_on": {"device": "cpu"},
        }
        (runs / name).mkdir()
        write_json(runs / name / RESULT, result)
        write_json(runs / name / SETTINGS, {"kind": "train"})
        np.savez(runs / name / LOGITS, **{"public/tta": logits["tta"]})
        journal = Journal(runs / name / JOURNAL)
        journal.trial_started(0, {})
        journal.epoch_ended(0, 1, {"epoch_seconds": 1800.0})
    return runs


def test_the_table_has_a_row_for_what_is_there_with_hours_and_a_paired_test_against_the_default(runs, labels):
    text = results(runs, BUDGETS["small"], labels=labels, data="d.csv")
    rows = {row.split(" | ")[0].strip("| "): row.strip("| \n").split(" | ") for row in text.splitlines()}
    assert list(rows)[2:6] == ["default_short", "default_long", "length_3", "standard"]
    standard = rows["standard"]
    assert standard[1].startswith("`fer-search train --name standard --recipe search/bundle/winner.toml")
    assert standard[1].endswith("drop_test_duplicates=false`")
    assert standard[3].startswith("94.0% (8")  # 188 of 200
    assert standard[6] == ""  # no image without copies was recorded
    assert standard[7] == f"+9.0 (p = {binomtest(0, 18, 0.5).pvalue:.2g})"  # 30 were wrong, 12 are
    assert standard[8:] == ["tau -0.3", rows["default_long"][9], "0.50 CPU", "standard"]
    assert rows["default_long"][7:9] == ["", "left out"]
    assert "Without a result: fraction_0.005, fraction_0.01, retrain, scratch" in text


def test_the_best_is_chosen_on_search_validation_among_the_duplicate_free_and_measured_against_the_target(runs, labels):
    text = results(runs, BUDGETS["small"], labels=labels, data="d.csv")
    assert "Best on search-validation is default_long: 85.0%" in text
    assert "+6.0 points to the design's target of 79%" in text
    assert "+14.2 to EfficientNet-B2" in text


def test_a_curve_of_three_lengths_is_extrapolated(runs, labels):
    text = results(runs, BUDGETS["small"], labels=labels, data="d.csv")
    assert "by epochs: 75.0% of 2, 80.0% of 3, 85.0% of 5. A power law expects" in text
    assert "by images" not in text


def test_rows_come_in_the_order_of_the_steps(runs):
    names = [row.name for row in read_rows(runs, BUDGETS["small"], data="d.csv")]
    assert names == ["default_short", "default_long", "length_3", "standard"]
