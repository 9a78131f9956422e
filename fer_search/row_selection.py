"""Which trials of a leaderboard a user wants to see, in which order, and all of them as csv."""

import csv
import io
import operator
import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from fer_search.errors import InvalidInput, nearest_name, problem
from fer_search.recipe import toml_value

Row = dict[str, Any]
COMPARISONS: dict[str, Callable[[Any, Any], bool]] = {
    "<=": operator.le, ">=": operator.ge, "!=": operator.ne, "=": operator.eq, "<": operator.lt, ">": operator.gt,
}  # fmt: skip


@dataclass(frozen=True)
class Condition:
    """What a column must be, such as `sam_rho >= 0.05`; a row without a value there does not hold it."""

    column: str
    comparison: str
    value: Any

    def holds(self, row: Row) -> bool:
        """Return whether a flat row is as it must be."""
        value = row[self.column]
        return value is not None and COMPARISONS[self.comparison](value, self.value)


def flat(row: Row) -> Row:
    """Return a leaderboard's row with a column for each searched parameter."""
    return {**{key: value for key, value in row.items() if key != "parameters"}, **row["parameters"]}


def select_rows(rows: Sequence[Row], *, where: Sequence[str], sort: str | None, limit: int | None) -> list[Row]:
    """Return the rows for which every condition of `where` holds, by the column `sort`, and at most so many.

    A `-` before the column's name turns the order around; rows without a value there come last. Raises InvalidInput for
    a column that is not there and for what cannot be compared.
    """
    if not rows:
        return []
    table = [flat(row) for row in rows]
    conditions = _conditions(where, table)
    found = [index for index, row in enumerate(table) if all(condition.holds(row) for condition in conditions)]
    if sort is not None:
        descending, column = sort.startswith("-"), sort.removeprefix("-")
        if wrong := _unknown_column("sort", column, table[0]):
            raise InvalidInput(wrong)
        valued = [index for index in found if table[index][column] is not None]
        valued.sort(key=lambda index: _sortable(table[index][column]), reverse=descending)
        found = valued + [index for index in found if table[index][column] is None]
    return [rows[index] for index in found[:limit]]


def rows_csv(rows: Sequence[Row]) -> str:
    """Return rows as csv (RFC 4180) with a line of headings and a column for each searched parameter."""
    if not rows:
        return ""
    text = io.StringIO()
    writer = csv.DictWriter(text, flat(rows[0]).keys(), lineterminator="\n")
    writer.writeheader()
    writer.writerows(flat(row) for row in rows)
    return text.getvalue()


def _conditions(where: Sequence[str], rows: list[Row]) -> list[Condition]:
    conditions, problems = [], []
    for text in where:
        match = re.fullmatch(r"\s*(\w+)\s*(<=|>=|!=|=|<|>)\s*(.+?)\s*", text)
        if match is None:
            rule = f"must be a column, one of {' '.join(COMPARISONS)}, and a value, as in 'sam_rho >= 0.05'"
            problems.append(problem("command line", "where", rule, text))
            continue
        column, comparison, value = match[1], match[2], toml_value(match[3])
        if wrong := _unknown_column("where", column, rows[0]):
            problems.append(wrong)
            continue
        numeric = all(isinstance(row[column], (int, float)) for row in rows if row[column] is not None)
        is_number = isinstance(value, (int, float))
        if numeric != is_number or (not numeric and comparison not in ("=", "!=")):
            rule = "must be compared with a number" if numeric else "must be compared with a word, by = or !="
            problems.append(problem("command line", f"where {column}", rule, text))
            continue
        conditions.append(Condition(column, comparison, value))
    if problems:
        raise InvalidInput(problems)
    return conditions


def _unknown_column(option: str, column: str, columns: Row) -> str | None:
    if column in columns:
        return None
    return problem(
        "command line", option, f"must name one of {', '.join(columns)}{nearest_name(column, columns)}", column
    )


def _sortable(value: Any) -> tuple[bool, Any]:
    """Return a key that orders numbers as numbers, before everything else by its text."""
    is_number = isinstance(value, (int, float))
    return not is_number, value if is_number else str(value)
