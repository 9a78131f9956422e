"""`fer-search simulate` as a user meets it."""

import json

import numpy as np
import pytest

from fer_search.journal import Journal
from fer_search.runs import write_json
from fer_search.spaces import check_space

QUICK = ("--seeds", 6, "--jobs", 1, "--workers", 4, "--budgets", "2,4")


@pytest.fixture
def curves(tmp_path, make_family):
    make_family(noise=0.05).recorded(12).write(tmp_path / "curves.parquet")
    return "curves.parquet"


def test_tables_and_json_say_the_same(fer_search, curves):
    arguments = ("simulate", curves, *QUICK, "--first-rung", 1, "--baseline", "random/none")
    code, table, _ = fer_search(*arguments)
    assert code == 0
    _, text, _ = fer_search(*arguments, "--json")
    found = json.loads(text)
    assert [each["name"] for each in found["settings"]] == ["first_rung 1", "random/none"]
    assert found["curves"][0]["setting"] == "curves/promotion, eta 3, first rung 1"
    assert found["budgets"] == [2, 4]
    for each in found["settings"]:
        assert np.shape(each["by_seed"]) == (6, 2)
        np.testing.assert_allclose(np.mean(each["by_seed"], axis=0), each["regret"])
        row = next(line for line in table.splitlines() if line.strip().startswith(each["name"]))
        assert f"{each['regret'][1]:.3f}".removeprefix("0") in row
    quality = found["curves"][0]["emulator"]
    assert f"R2 {quality['r2']:.2f}, rank correlation {quality['rank_correlation']:.2f}" in table
    assert f"{found['settings'][1]['difference_of_first'][0]:+.3f}" in table


def test_by_default_all_baselines_but_the_setting_itself_stand_beside_it(fer_search, curves):
    arguments = ("simulate", curves, "--seeds", 6, "--jobs", 1, "--workers", 2, "--budgets", 1, "--json")
    _, text, _ = fer_search(*arguments)
    assert [each["name"] for each in json.loads(text)["settings"]] == [
        "the space's own", "random/none", "random/stopping", "random/promotion", "tpe/stopping", "tpe/promotion",
        "curves/stopping",
    ]  # fmt: skip


def test_an_emulator_that_knows_nothing_is_called_guesswork(fer_search, tmp_path, make_family, changed):
    def shuffle(values):
        values[:] = np.random.default_rng(5).permutation(values)

    changed(make_family().recorded(12), shuffle).write(tmp_path / "noise.parquet")
    _, table, _ = fer_search("simulate", "noise.parquet", *QUICK, "--baseline", "random/none")
    assert "mostly guesswork" in table


def test_a_search_is_replayed_by_its_name(fer_search, tmp_path, make_family):
    family = make_family(noise=0.02)
    recorded = family.recorded(20)
    space = check_space(recorded.table, source=tmp_path / "space.toml")
    directory = tmp_path / "runs" / "first"
    journal = Journal(directory / "journal.jsonl")
    values = recorded.curves["onecycle"]["val_accuracy"]
    for number, point in enumerate(recorded.points):
        journal.trial_started(number, space.complete(point), point=point)
        num_epochs = 3 if number % 2 else 9
        for epoch in range(num_epochs):
            journal.epoch_ended(number, epoch + 1, {"val_accuracy": float(values[number, epoch])})
        journal.trial_ended(number, "PRUNED" if number % 2 else "COMPLETE")
    settings = {
        "kind": "search", "space": recorded.table, "space_file": "space.toml", "parameters": space.parameters,
        "data": {"source": "synthetic"},
    }  # fmt: skip
    write_json(directory / "settings.json", settings)
    code, table, errors = fer_search("simulate", "first", *QUICK, "--baseline", "random/none")
    assert code == 0, errors
    assert "first: 20 curves of val_accuracy over 9 epochs on synthetic" in table
    assert "10 of them stopped" in table


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("nowhere.parquet",), "nowhere.parquet: file: must exist and be readable"),
        (("nothing",), "runs: name: must be that of a search or a training there, which has none, got 'nothing'"),
        (("--budgets", "5,x"), "budgets: must be whole numbers from 1, ascending, with commas between them, got '5,x'"),
        (("--budgets", "10,5"), "budgets: must be whole numbers from 1"),
        (("curves.parquet", "--first-rung", 9), "first_rung: must be below the horizon, 9 epochs, got 9"),
        (("curves.parquet", "--scheduler", "none", "--eta", 3), "eta: must not be given, since it has no effect"),
        (("curves.parquet", "--searcher", "grid"), "searcher: must be one of curves, tpe, random, got 'grid'"),
        (("curves.parquet", "--baseline", "grid/none"), "baseline: must be one of random/none, "),
        (("curves.parquet", "--schedule", "annealed"), "schedule: must be one of the recorded: onecycle"),
    ],
)
def test_a_mistake_is_one_clear_message_and_exit_code_2(fer_search, curves, arguments, message):
    code, out, errors = fer_search("simulate", *arguments)
    assert (code, out) == (2, "")
    assert message in errors
    assert "Traceback" not in errors
