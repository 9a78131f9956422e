"""Searches of other versions of the package, as this one reads them and goes on with them."""

import json
from dataclasses import asdict
from pathlib import Path

import pytest

from fer_search.journal import FILE_NAME, Journal
from fer_search.recipe import Recipe
from fer_search.record import describe_data, package_versions, split_for
from fer_search.runs import SETTINGS, write_json
from fer_search.search_result import check_version, read_search
from fer_search.spaces import check_space
from fer_search.tracking_uri import local_store
from fer_search.tuning.connection import Resources

TABLE = {"search": {"num_trials": 2}, "base": {"epochs": 3}, "space": {"max_lr": {"low": 0.001, "high": 0.05}}}


@pytest.fixture
def begin(tmp_path, faces):
    """Return a function that writes a finished search of two trials, begun with other defaults or without a field."""

    def write(changed, *, without=()):
        space = check_space(TABLE, source=Path("space.toml"))
        own = {key: value for key, value in {**space.parameters, **changed}.items() if key not in without}
        (tmp_path / "s").mkdir()
        settings = {
            "kind": "search", "search_id": "id", "space_file": "space.toml", "space": TABLE, "parameters": own,
            "data": describe_data("synthetic", faces, split_for(faces, Recipe())), "versions": package_versions(),
            "tracking_uri": local_store(tmp_path), "address": None, "resources": asdict(Resources()),
        }  # fmt: skip
        write_json(tmp_path / "s" / SETTINGS, settings)
        journal = Journal(tmp_path / "s" / FILE_NAME)
        for number, accuracy in enumerate((0.4, 0.6)):
            point = {"max_lr": 0.01 * (number + 1)}
            journal.trial_started(number, {**own, **point}, point=point)
            for epoch in range(1, 4):
                journal.epoch_ended(number, epoch, {"val_accuracy": accuracy})
            journal.trial_ended(number, "COMPLETE")
        return tmp_path

    return write


def test_a_default_that_changed_since_a_search_began_is_still_its_own(begin):
    default = Recipe().weight_decay
    runs = begin({"weight_decay": default / 2})
    result = read_search("s", runs=runs)
    assert result.space.parameters["weight_decay"] == default / 2
    assert result.space.complete({"max_lr": 0.02})["weight_decay"] == default / 2
    check_version(result)


@pytest.mark.parametrize(
    ("changed", "without", "message"),
    [
        (
            {},
            ("soft_label_weight",),
            "soft_label_weight: must be nothing, as when the search began: another version of",
        ),
        ({"blur": 0.5}, (), "blur: must be 0.5, as when the search began: another version of fer_search goes on"),
        ({"max_lr": 0.003}, (), "max_lr: must be 0.003, as when the search began"),  # its first trial's
    ],
)
def test_a_search_with_other_fields_is_read_and_goes_on_with_its_own_version_only(
    begin, fer_search, changed, without, message
):
    runs = begin(changed, without=without)
    found = json.loads(fer_search("compare", "s", "--runs", runs, "--json").stdout)
    assert [(row["trial"], row["parameters"]) for row in found["trials"]] == [
        (1, {"max_lr": 0.02}), (0, {"max_lr": 0.01}),
    ]  # fmt: skip
    assert fer_search("report", "s", "--runs", runs, "--output", runs / "page").returncode == 0
    refused = fer_search("resume", "s", "--runs", runs)
    assert refused.returncode == 2
    assert refused.stderr.startswith(f"error: {runs / 's' / SETTINGS}: {message}")
    assert refused.stderr.count("\n") == 1
