"""Learning curves of configurations: what `calibrate` records, or a search left behind, and `simulate` replays.

The file is parquet: a row per configuration, schedule and epoch, with a column per metric; the space and the points are
JSON in the file's metadata, so that a file explains itself.
"""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from numpy.typing import NDArray

from fer_search.atomic import replacing
from fer_search.errors import InvalidInput, problem
from fer_search.files import MOST_TABLE_BYTES, check_file, check_unpacked
from fer_search.journal import TrialRecord
from fer_search.tuning.space import Point

FORMAT = 1
METADATA = b"fer_search"
Curves = dict[str, NDArray[np.float64]]
"""Metric -> (points, epochs)."""


@dataclass(frozen=True)
class RecordedCurves:
    """The `points` of a space (`table` is its file's content), and for each schedule the curves of all of them.

    `data` says in words what they were trained on. NaN: the training had diverged, or, for the points whose numbers are
    in `stopped`, had been stopped before that epoch.
    """

    table: dict[str, Any]
    points: list[Point]
    curves: Mapping[str, Curves]
    data: str
    stopped: Sequence[int] = ()

    def write(self, path: Path) -> None:
        """Write the file, whole or not at all."""
        parts = []
        for schedule, metrics in self.curves.items():
            number, epoch = np.indices(next(iter(metrics.values())).shape)
            columns = {"point": number.ravel(), "schedule": [schedule] * number.size, "epoch": epoch.ravel() + 1}
            parts.append(pa.table({**columns, **{name: values.ravel() for name, values in metrics.items()}}))
        about = {
            "format": FORMAT,
            "table": self.table,
            "points": self.points,
            "data": self.data,
            "stopped": [*self.stopped],
        }
        whole = pa.concat_tables(parts).replace_schema_metadata({METADATA: json.dumps(about).encode()})
        with replacing(path) as temporary:
            pq.write_table(whole, temporary, compression="zstd")

    @classmethod
    def of_trials(
        cls, trials: Sequence[TrialRecord], *, table: dict[str, Any], metric: str, num_epochs: int, data: str
    ) -> "RecordedCurves":
        """Return a search's curves of the metric that it compared; a trial that broke has none."""
        values = np.full((len(trials), num_epochs), np.nan)
        for row, trial in enumerate(trials):
            if trial.diverged or trial.state != "FAIL":
                values[row, : len(trial.epochs)] = [metrics[metric] for metrics in trial.epochs]
        stopped = [row for row, trial in enumerate(trials) if trial.state != "COMPLETE" and not trial.diverged]
        return cls(table, [trial.point for trial in trials], {"search": {metric: values}}, data, stopped)

    @classmethod
    def read(cls, path: Path) -> "RecordedCurves":
        """Read a file of `write`; raises InvalidInput for any other."""
        check_file(path, most_bytes=MOST_TABLE_BYTES)
        try:
            with pq.ParquetFile(path) as file:
                check_unpacked(path, file)
                whole = file.read()
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise InvalidInput(problem(path, "file", "must be parquet", str(error))) from error
        try:
            about = json.loads((whole.schema.metadata or {}).get(METADATA, b"{}"))
            if about.get("format") != FORMAT:
                raise InvalidInput(problem(path, "format", f"must be {FORMAT}", about.get("format")))
            return cls._of(whole, about)
        except (ValueError, TypeError, LookupError, AttributeError, RecursionError, pa.ArrowException) as error:
            if isinstance(error, InvalidInput):
                raise
            rule = "must hold learning curves as `calibrate` writes them"
            raise InvalidInput(problem(path, "file", rule, f"{type(error).__name__}: {error}")) from error

    @classmethod
    def _of(cls, whole: pa.Table, about: dict[str, Any]) -> "RecordedCurves":
        table, points = about["table"], about["points"]
        if not isinstance(table, dict) or not isinstance(table.get("search", {}), dict):
            raise TypeError("the table of the space, and its search, must be tables")
        if not isinstance(points, list) or not all(isinstance(point, dict) for point in points):
            raise TypeError("the points must be a list of tables")
        frame = whole.to_pandas()
        metrics = [name for name in frame.columns if name not in ("point", "schedule", "epoch")]
        curves = {
            str(schedule): {name: rows[name].to_numpy().reshape(len(points), -1).astype(np.float64) for name in metrics}
            for schedule, rows in frame.groupby("schedule", sort=False)
        }
        if not curves or not metrics:
            raise ValueError("there are no curves")
        stopped = [int(number) for number in about.get("stopped", ())]
        return cls(table, points, curves, str(about["data"]), stopped)
