import io

import numpy as np
import pytest
from rich.console import Console

from fer_search.data.faces import EMOTIONS
from fer_search.report import event_line, figures_table, leak_line, new_table, paired_lines, summary_table, target_line
from fer_search.report_importance import importances_table
from fer_search.training.metrics import evaluate
from fer_search.tuning.importance import Importance, Importances


def lines(table, *, width):
    console = Console(width=width, file=io.StringIO())
    console.print(table)
    return [line.strip() for line in console.file.getvalue().splitlines()]


@pytest.fixture
def figures():
    labels = np.arange(28_000) % 7
    logits = np.random.default_rng(0).normal(size=(28_000, 7))
    logits[np.arange(28_000), labels] += 1
    return evaluate(logits, labels, classes=EMOTIONS, temperature=1.3)


def test_the_tables_of_figures_fit_on_80_columns(figures):
    rows = [(split, views, True, figures) for split in ("validation", "public_unique") for views in ("plain", "tta")]
    for table in (figures_table(figures, title=""), summary_table(rows, title="", caption="")):
        table.caption = None
        assert lines(table, width=80) == lines(table, width=200)


def test_a_training_of_a_race_is_said_to_be_of_which_trial_of_the_search():
    event = {"event": "trial_started", "trial": 3, "parameters": {}, "point": {"trial": 12, "seed": 7}}
    assert event_line(event, num_epochs=None) == "trial   3  started: trial 12 of the search, with seed 7"
    assert event_line({**event, "point": {"max_lr": 0.1}}, num_epochs=None) == "trial   3  started"


def test_a_title_longer_than_its_table_stays_on_its_line(figures):
    table = new_table("a-search-with-quite-a-long-name: running")
    table.add_column("trial")
    assert lines(table, width=80)[0].strip() == "a-search-with-quite-a-long-name: running"


def test_a_line_of_the_summary_holds_accuracy_interval_f1_and_both_calibration_errors(figures):
    row = next(line for line in lines(summary_table([("public", "tta", True, figures)], title="", caption=""), width=80)
               if line.startswith("public"))  # fmt: skip
    assert row.split() == [
        "public",
        "tta*",
        "28,000",
        f"{figures['accuracy']:.2%}",
        f"{figures['accuracy_low'] * 100:.1f}",
        "-",
        f"{figures['accuracy_high'] * 100:.1f}",
        f"{figures['macro_f1']:.3f}",
        f"{figures['calibration_error']:.1%}",
        f"{figures['calibrated']['calibration_error']:.1%}",
    ]


def test_an_emotion_without_a_value_leaves_its_cell_empty():
    labels = np.zeros(5, dtype=np.int64)
    figures = evaluate(np.eye(7)[[0, 0, 0, 0, 3]], labels, classes=EMOTIONS, temperature=1)
    shown = lines(figures_table(figures, title=""), width=80)
    (angry,) = [line.split() for line in shown if line.startswith("angry")]
    (disgust,) = [line.split() for line in shown if line.startswith("disgust")]
    assert angry[:3] == ["angry", "100.0%", "80.0%"]
    assert disgust == ["disgust", *"0000000"]


def test_the_distance_to_the_target_is_in_points():
    public = {"num_images": 3589}
    assert target_line({**public, "accuracy": 0.7312}, label="PublicTest") == "target 79% on FER2013: -5.9 points"
    assert target_line({**public, "accuracy": 0.795}, label="PublicTest") == "target 79% on FER2013: +0.5 points"


def test_other_images_than_fer2013s_public_test_have_no_distance_to_the_target():
    assert target_line({"num_images": 298, "accuracy": 0.862}, label="PublicTest") is None
    leaky = "PublicTest, whose duplicates in Training were kept"
    assert target_line({"num_images": 3589, "accuracy": 0.8}, label=leaky) is None


def test_a_paired_test_is_told_with_its_verdict():
    difference = {"value": 0.0123, "low": -0.001, "high": 0.025}
    paired = {"accuracy_difference": difference, "macro_f1_difference": difference, "mcnemar_p": 0.031}
    paired |= {"only_first_correct": 1200, "only_second_correct": 90}
    accuracy, macro_f1, counts = paired_lines(paired)
    assert accuracy == "accuracy +1.23 points (95 % interval -0.10 to +2.50)"
    assert macro_f1 == "macro-F1 +1.23 points (95 % interval -0.10 to +2.50)"
    assert "1,200 images" in counts
    assert "more than chance at the 5 % level (exact McNemar p = 0.031)" in counts
    assert "no more than chance" in paired_lines(paired | {"mcnemar_p": 0.05})[2]


def test_the_leak_probe_is_told_between_chance_and_its_bound():
    probe = {"accuracy": 0.16, "low": 0.15, "high": 0.17, "chance": 1 / 7, "advantage": 0.017, "bound": 0.164}
    assert "16.0% of augmented blank images" in leak_line(probe)
    assert "by chance 14.3%, at best 16.4%" in leak_line(probe)


def test_importances_are_shown_on_80_columns_with_interval_trials_and_where_the_best_are():
    found = Importances(
        num_trials=150,
        explained=0.553,
        parameters=(
            Importance("max_lr", 0.51, 0.311, 0.701, 150, (0.0058917, 0.0205), {}),
            Importance("optimizer", 0.03, -0.01, 0.08, 150, None, {"adamw": 38}),
            Importance("randaugment_probability_fear", -0.002, -0.03, 0.02, 50, (0.5, 0.5), {}),
            Importance("randaugment_operations", 0.0, 0.0, 0.0, 0, None, {}),
        ),
    )
    shown = lines(importances_table(found, title="first"), width=80)
    assert [line.split() for line in shown if line.startswith(("max_lr", "optimizer", "randaugment"))] == [
        ["max_lr", "51.0%", "(31.1", "to", "70.1)", "150", "0.00589", "to", "0.0205"],
        ["optimizer", "3.0%", "(-1.0", "to", "8.0)", "150", "adamw", "(38)"],
        ["randaugment_probability_fear", "-0.2%", "(-3.0", "to", "2.0)", "50", "0.5"],
        ["randaugment_operations", "0.0%", "(0.0", "to", "0.0)", "0", "not", "searched"],
    ]
    assert "From the ranks of 150 trials" in " ".join(shown)
    assert "parameters explain 55% of the ranks' variance" in " ".join(shown)
