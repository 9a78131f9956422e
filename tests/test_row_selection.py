"""Which rows of a leaderboard are shown, in which order; pandas selects, sorts and reads for comparison."""

import io
import random

import pandas as pd
import pytest

from fer_search.errors import InvalidInput
from fer_search.row_selection import flat, rows_csv, select_rows


@pytest.fixture
def rows():
    rng = random.Random(0)
    return [
        {
            "rank": rank,
            "trial": trial,
            "state": rng.choice(["COMPLETE", "PRUNED"]),
            "val_accuracy": None if trial == 5 else rng.random(),
            "message": 'stopped, "early"\nat a rung' if trial == 3 else "",
            "parameters": {"max_lr": rng.random(), "sam_adaptive": trial % 2 == 0, "backbone": f"b{trial % 3}"},
        }
        for rank, trial in enumerate(rng.sample(range(20), 20), start=1)
    ]


def numbers(rows):
    return [row["trial"] for row in rows]


@pytest.mark.parametrize(
    ("where", "query"),
    [
        (["max_lr >= 0.4"], "max_lr >= 0.4"),
        (["max_lr<0.4", "state = COMPLETE"], "max_lr < 0.4 and state == 'COMPLETE'"),
        (["backbone != b1"], "backbone != 'b1'"),
        (["sam_adaptive = true"], "sam_adaptive == True"),
        (["val_accuracy > 0.2"], "val_accuracy > 0.2"),
        ([], "trial >= 0"),
    ],
)
def test_conditions_select_what_pandas_selects(rows, where, query):
    expected = pd.DataFrame([flat(row) for row in rows]).query(query)
    assert numbers(select_rows(rows, where=where, sort=None, limit=None)) == list(expected["trial"])


@pytest.mark.parametrize("column", ["val_accuracy", "max_lr", "backbone", "trial"])
@pytest.mark.parametrize("descending", [False, True])
def test_rows_are_sorted_as_pandas_sorts_them_and_those_without_a_value_come_last(rows, column, descending):
    table = pd.DataFrame([flat(row) for row in rows])
    expected = table.sort_values(column, ascending=not descending, kind="stable", na_position="last")
    found = select_rows(rows, where=[], sort=f"{'-' * descending}{column}", limit=None)
    assert [flat(row)[column] for row in found][:-1] == list(expected[column])[:-1]
    assert sorted(numbers(found)) == sorted(numbers(rows))


def test_no_more_than_the_limit_are_shown(rows):
    assert numbers(select_rows(rows, where=[], sort="rank", limit=4)) == numbers(rows)[:4]


def test_all_that_is_wrong_with_conditions_is_said_at_once(rows):
    with pytest.raises(InvalidInput) as caught:
        select_rows(rows, where=["max_lr", "maxlr > 1", "state > 3", "backbone < b1", "max_lr = b"], sort=None, limit=1)
    problems = caught.value.problems
    assert len(problems) == 5
    assert "where: must be a column" in problems[0]
    assert "(did you mean 'max_lr'?)" in problems[1]
    assert "state: must be compared with a word" in problems[2]
    assert "backbone: must be compared with a word" in problems[3]
    assert "max_lr: must be compared with a number" in problems[4]
    with pytest.raises(InvalidInput, match="sort: must name one of rank, trial"):
        select_rows(rows, where=[], sort="-rho", limit=None)


def test_csv_is_read_back_by_pandas_as_it_was(rows):
    table = pd.read_csv(io.StringIO(rows_csv(rows)), keep_default_na=False, na_values={"val_accuracy": [""]})
    expected = pd.DataFrame([flat(row) for row in rows])
    pd.testing.assert_frame_equal(table, expected, check_dtype=False)


def test_a_search_without_trials_has_no_rows_to_select_from():
    assert select_rows([], where=["anything"], sort="x", limit=1) == []
    assert rows_csv([]) == ""
