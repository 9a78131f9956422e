"""Extrapolated learning curves, on curves whose law is known."""

import sys
from pathlib import Path

import numpy as np
import pytest

sys.path.insert(0, str(Path(__file__).parent / "benchmarks"))
from extrapolation import extrapolate, main, with_ceiling

from fer_search.runs import RESULT, write_json

SIZES = np.array([5, 10, 20, 40, 80])


def test_a_curve_without_noise_is_continued():
    accuracies = with_ceiling(SIZES / 5, 0.72, 0.25, 0.7)
    (found,) = extrapolate(SIZES, accuracies, num_images=10**9, seed_deviation=1e-5, at=[300])
    assert found.value == pytest.approx(with_ceiling(np.array([60.0]), 0.72, 0.25, 0.7)[0], abs=0.003)
    assert found.high - found.low < 0.01


@pytest.mark.parametrize(
    ("law", "least"),
    [
        (lambda x: with_ceiling(x, 0.70, 0.30, 0.8), 0.85),
        (lambda x: with_ceiling(x, 0.78, 0.35, 0.4), 0.85),
        (lambda x: with_ceiling(x, 1.0, 0.55, 0.15), 0.85),
        (lambda x: 0.45 + 0.06 * np.log(x), 0.75),  # of another form: that error is not all in the interval
    ],
    ids=["early ceiling", "late ceiling", "no ceiling", "logarithm"],
)
def test_the_interval_covers_what_a_longer_training_reaches(law, least):
    rng, covered, widths = np.random.default_rng(0), [], []
    num_images, deviation, target = 3589, 0.004, 200.0

    def measured(size):
        return rng.binomial(num_images, law(size / 5) + rng.normal(0, deviation)) / num_images

    for repetition in range(40):
        accuracies = [measured(size) for size in SIZES]
        (found,) = extrapolate(
            SIZES, accuracies, num_images=num_images, seed_deviation=deviation, at=[target], seed=repetition
        )
        covered.append(found.low <= measured(target) <= found.high)
        widths.append(found.high - found.low)
    assert np.mean(covered) >= least
    assert np.median(widths) < 0.1  # and it says something


def test_further_away_less_is_known_and_two_sizes_are_not_enough():
    accuracies = with_ceiling(SIZES / 5, 0.72, 0.25, 0.5)
    near, far = extrapolate(SIZES, accuracies, num_images=3589, seed_deviation=0.004, at=[100, 2000])
    assert far.high - far.low > near.high - near.low
    with pytest.raises(ValueError, match="at least three different ones, got \\[5, 10\\]"):
        extrapolate([5, 10, 10], [0.5, 0.6, 0.61], num_images=100, seed_deviation=0.0, at=[20])


@pytest.mark.parametrize(("field", "sizes"), [("epochs", (30, 10, 90)), ("num_fit", (3000, 1000, 9000))])
def test_finished_trainings_are_continued_by_what_they_differ_in(tmp_path, monkeypatch, capsys, field, sizes):
    for number, size in enumerate(sizes):
        accuracy = with_ceiling(np.array([size / sizes[1]]), 0.72, 0.25, 0.7)[0]
        figures = {"accuracy": accuracy, "accuracy_low": 0.1, "accuracy_high": 0.9, "num_images": 10**9}
        size_of = {"epochs": 14, "num_fit": 25_000, field: size}
        result = {
            "recipe": {"epochs": size_of["epochs"]}, "data": {"num_fit": size_of["num_fit"]},
            "prediction": {"views": "tta"}, "metrics": {"public": {"tta": figures}},
        }  # fmt: skip
        write_json(tmp_path / str(number) / RESULT, result)
    runs = [str(tmp_path / str(number)) for number in range(3)]
    monkeypatch.setattr(sys, "argv", ["extrapolation.py", *runs, "--at", str(10 * sizes[2])])
    main()
    *measured, expected = capsys.readouterr().out.splitlines()
    assert [line.split()[0] for line in measured] == [f"{size:,}" for size in sorted(sizes)]
    assert "measured 47.0% (10.0% to 90.0%)" in measured[0]
    size, _, value, *_ = expected.split()
    assert size == f"{10 * sizes[2]:,}"
    truth = with_ceiling(np.array([10 * sizes[2] / sizes[1]]), 0.72, 0.25, 0.7)[0]
    assert float(value.rstrip("%")) / 100 == pytest.approx(truth, abs=0.02)
