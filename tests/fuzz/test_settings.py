"""Recipes, spaces and the JSON of runs, broken in every way."""

import json
import tomllib
from pathlib import Path

import pytest
import tomli_w
from hypothesis import example, given
from hypothesis import strategies as st
from mutations import dates, edited, mutated, scalars, survives, trees, written

from fer_search.files import read_toml
from fer_search.recipe import Recipe, parse_overrides
from fer_search.runs import read_json
from fer_search.spaces import check_space

SPACES = Path(__file__).resolve().parents[2] / "search_spaces"
RECIPE = {key: value for key, value in Recipe().model_dump().items() if value is not None}
SPACE = tomllib.loads((SPACES / "smoke.toml").read_text())
PARTS = ("low", "high", "log", "default", "choices", "step", "when", "prior", "num_trials", "searcher", "eta", "metric")
toml_leaves = scalars.filter(lambda value: value is not None) | dates


@given(mutated(tomli_w.dumps(RECIPE).encode()) | st.binary(max_size=200))
@example(b"x = " + b"[" * 5000)
@example(b"x = " + b"9" * 5000)
@example(b"\xef\xbb\xbfepochs = 3")
def test_any_recipe_file(folder, content):
    survives(lambda: Recipe.read(written(folder / "x.toml", content)))


@given(edited(RECIPE, toml_leaves))
def test_a_recipe_of_any_values(values):
    survives(lambda: Recipe.build(values))


@given(mutated((SPACES / "smoke.toml").read_bytes()) | mutated((SPACES / "full.toml").read_bytes()))
def test_any_space_file(folder, content):
    path = written(folder / "space.toml", content)
    survives(lambda: check_space(read_toml(path), source=path))


wild_tables = trees(st.sampled_from([*SPACE, *PARTS, *RECIPE])).filter(lambda value: isinstance(value, dict))


@given(edited(SPACE, toml_leaves) | wild_tables)
@example({**SPACE, "base": {"": 3}})
def test_a_space_of_any_shape(table):
    survives(lambda: check_space(table, source=Path("space.toml")))


@given(st.dictionaries(st.sampled_from(PARTS), toml_leaves | st.lists(toml_leaves, max_size=3), max_size=5))
@example({"low": 0, "high": 10**28, "step": 1})
@example({"low": 0, "high": 10**400})
def test_a_dimension_of_any_shape(domain):
    table = {**SPACE, "space": {**SPACE["space"], "max_lr": domain}}
    survives(lambda: check_space(table, source=Path("space.toml")))


overrides = st.text(max_size=20) | st.builds("{}={}".format, st.sampled_from(sorted(RECIPE)), st.text(max_size=12))


@given(st.lists(overrides))
def test_any_override(arguments):
    survives(lambda: Recipe.build(parse_overrides(arguments)))


@given(mutated(json.dumps({"format": 3, "kind": "search"}).encode()) | st.binary(max_size=100))
@example(b"[" * 100_000)
@example(b'{"format": ' + b"9" * 5000 + b"}")
def test_any_json(folder, content):
    survives(lambda: read_json(written(folder / "x.json", content)))


@pytest.mark.parametrize("name", ["a.toml", "a.json"])
def test_a_text_file_that_is_too_large_is_refused(tmp_path, name):
    with (tmp_path / name).open("wb") as file:
        file.truncate(2**40)  # takes no space
    read = read_toml if name.endswith("toml") else read_json
    with pytest.raises(ValueError, match=r"file: must be at most 16 MB"):
        read(tmp_path / name)
