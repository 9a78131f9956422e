"""The file of recorded learning curves."""

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

from fer_search.errors import InvalidInput
from fer_search.recorded_curves import RecordedCurves


def test_curves_come_back_as_they_were_written(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    curves = {name: {"val_accuracy": rng.random((3, 4)), "val_loss": rng.random((3, 4))} for name in ("one", "two")}
    points = [{"max_lr": 0.1 * n, "optimizer": "sgd"} for n in range(3)]
    RecordedCurves({"base": {"epochs": 4}}, points, curves, "faces").write(tmp_path / "curves.parquet")
    found = RecordedCurves.read(tmp_path / "curves.parquet")
    assert (found.table, found.points, found.data) == ({"base": {"epochs": 4}}, points, "faces")
    for schedule, metrics in curves.items():
        for metric, values in metrics.items():
            np.testing.assert_array_equal(found.curves[schedule][metric], values)
    frame = pd.read_parquet(tmp_path / "curves.parquet")  # readable by anyone
    row = frame[(frame.point == 1) & (frame.schedule == "two") & (frame.epoch == 3)]
    assert row.val_loss.item() == curves["two"]["val_loss"][1, 2]


def test_another_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "other.parquet"
    path.write_text("no parquet")
    with pytest.raises(InvalidInput, match=r"other\.parquet: file: must be parquet"):
        RecordedCurves.read(path)
    pd.DataFrame({"point": [0]}).to_parquet(path)
    with pytest.raises(InvalidInput, match=r"format: must be 1, got None"):
        RecordedCurves.read(path)
    with pytest.raises(InvalidInput, match=r"must exist and be readable"):
        RecordedCurves.read(tmp_path / "none.parquet")
