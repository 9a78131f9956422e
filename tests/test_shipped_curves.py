"""The curves of FER2013 that are shipped, and what follows from them: how the spaces judge."""

from pathlib import Path

import numpy as np
import pytest
from scipy import stats

from fer_search.calibrations import Calibration
from fer_search.cli_simulate import SHIPPED
from fer_search.emulator import recorded_space
from fer_search.files import read_toml
from fer_search.recorded_curves import RecordedCurves
from fer_search.spaces import check_space

ROOT = Path(__file__).parents[1]


@pytest.fixture(scope="module")
def calibration():
    recorded = RecordedCurves.read(SHIPPED)
    return Calibration(SHIPPED.parent, recorded_space(recorded, source=SHIPPED), recorded)


def test_they_are_24_configurations_in_both_schedules_with_raw_and_averaged_weights(calibration):
    curves = calibration.recorded.curves
    assert list(curves) == ["onecycle", "annealed"]
    for metrics in curves.values():
        for metric in ("val_accuracy", "val_accuracy_ema"):
            assert metrics[metric].shape == (24, 9)
            assert np.isfinite(metrics[metric]).all()
    assert len({tuple(point.values()) for point in calibration.recorded.points}) == 24


def test_the_document_says_what_the_curves_say(calibration):
    lines = (ROOT / "docs" / "rungs.md").read_text().splitlines()
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("|")][2:]
    assert [int(row[0].split()[0]) for row in rows] == list(range(1, 9))
    curves = calibration.recorded.curves
    end = curves["onecycle"]["val_accuracy"][:, -1]
    ways = [(schedule, metric) for schedule in curves for metric in ("val_accuracy", "val_accuracy_ema")]
    found = {(each.epoch, each.schedule, each.metric): each for each in calibration.agreements()}
    for epoch, row in enumerate(rows, start=1):
        for (schedule, metric), cell in zip(ways, row[1:], strict=True):
            each = found[epoch, schedule, metric]
            assert each.tau == pytest.approx(stats.kendalltau(curves[schedule][metric][:, epoch - 1], end).statistic)
            assert cell == f"{each.tau:.2f} ({each.low:.2f} to {each.high:.2f}), {each.keeps_best:.0%}"


def test_the_spaces_for_real_searches_judge_as_the_curves_recommend(calibration):
    settings = calibration.verdict(calibration.agreements()).settings
    assert settings == {"first_rung": 3, "metric": "val_accuracy_ema", "restarts": []}
    for name in ("augmentation", "design", "full", "network", "sam_onecycle"):
        path = ROOT / "search_spaces" / f"{name}.toml"
        space = check_space(read_toml(path), source=path)
        assert (space.metric, space.parameters["restarts"]) == (settings["metric"], settings["restarts"])
