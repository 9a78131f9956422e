"""How much faster `read_csv` is than pandas and a Python split of every row.

    python tests/benchmarks/bench_csv_loading.py [fer2013.csv]

Both read the same file in turn, so that a busy machine slows both. Without a path it is a csv of 4,000 synthetic faces.
"""

import argparse
import statistics
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
from numpy.typing import NDArray

from fer_search.data.fer2013_csv import read_csv, write_csv
from fer_search.data.synthetic import synthesize


def read_with_pandas(path: Path) -> NDArray[np.uint8]:
    frame = pd.read_csv(path)
    return np.array([np.array(row.split(), dtype=np.uint8) for row in frame["pixels"]]).reshape(-1, 48, 48)


def seconds(read: Callable[[Path], object], path: Path) -> float:
    start = time.perf_counter()
    read(path)
    return time.perf_counter() - start


def compare(path: Path, repeats: int) -> None:
    np.testing.assert_array_equal(read_csv(path).pixels, read_with_pandas(path))
    pairs = [(seconds(read_csv, path), seconds(read_with_pandas, path)) for _ in range(repeats)]
    print(f"{path.name}, {path.stat().st_size / 1e6:.0f} MB, {repeats} repeats      min  median     max")
    for name, values in (
        ("fer_search read_csv, s", [ours for ours, _ in pairs]),
        ("pandas + split, s", [theirs for _, theirs in pairs]),
        ("ratio", [theirs / ours for ours, theirs in pairs]),
    ):
        print(f"{name:>40} {min(values):7.2f} {statistics.median(values):7.2f} {max(values):7.2f}")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("csv", type=Path, nargs="?")
    parser.add_argument("--repeats", type=int, default=3)
    arguments = parser.parse_args()
    if arguments.csv:
        compare(arguments.csv, arguments.repeats)
    else:
        with tempfile.TemporaryDirectory() as directory:
            synthetic = Path(directory) / "synthetic.csv"
            write_csv(synthesize(4000), synthetic)
            compare(synthetic, arguments.repeats)
