"""A search of an objective that is not ours: the documented example, against scikit-learn by hand."""

import re
import runpy
from html.parser import HTMLParser
from pathlib import Path

import pytest
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from fer_search import InvalidInput, optimize
from fer_search.journal import FILE_NAME, read_events
from fer_search.tuning.limit import Budget

EXAMPLE = Path(__file__).parent.parent / "docs" / "examples" / "own_objective.py"


@pytest.fixture(scope="module")
def example(cluster, tmp_path_factory):
    """The names of the example after it has run as a script."""
    with pytest.MonkeyPatch.context() as patch:
        patch.chdir(tmp_path_factory.mktemp("example"))
        return runpy.run_path(str(EXAMPLE), run_name="__main__")


def test_the_example_is_twenty_lines_beside_imports_and_documentation():
    inner = EXAMPLE.read_text().partition("from fer_search import Report, optimize\n")[2]
    inner = re.sub(r'""".*?"""', "", inner, flags=re.DOTALL)
    assert len([line for line in inner.splitlines() if line.strip()]) <= 20


def test_every_trial_reported_what_scikit_learn_gives_with_its_parameters(example):
    fit, judged, labels, truth = train_test_split(*load_digits(return_X_y=True), random_state=0)
    result = example["result"]
    assert result.complete
    assert {trial.state for trial in result.trials} == {"COMPLETE", "PRUNED"}
    for trial in result.trials:
        rate, width = trial.parameters["learning_rate"], trial.parameters["width"]
        model = MLPClassifier((width,), learning_rate_init=rate, random_state=0)
        for metrics in trial.epochs:
            model.partial_fit(fit, labels, classes=range(10))
            assert metrics == {"accuracy": model.score(judged, truth)}
    best = max(trial.epochs[-1]["accuracy"] for trial in result.trials if trial.state == "COMPLETE")
    assert result.winner().epochs[-1]["accuracy"] == best


def test_the_first_trial_has_the_defaults(example):
    assert example["result"].trials[0].parameters == example["defaults"]


def test_the_dataframe_is_the_leaderboard_with_a_column_for_each_parameter(example):
    result = example["result"]
    frame = result.to_dataframe()
    by_number = {trial.number: trial for trial in result.trials}
    assert sorted(frame.trial) == sorted(by_number)
    for row in frame.itertuples():
        trial = by_number[row.trial]
        assert (row.state, row.accuracy) == (trial.state, trial.epochs[-1]["accuracy"])
        assert (row.learning_rate, row.width) == (trial.parameters["learning_rate"], trial.parameters["width"])
    complete = frame[frame.state == "COMPLETE"]
    assert complete.accuracy.is_monotonic_decreasing
    assert set(complete.index) == set(range(len(complete)))


class Fragment(HTMLParser):
    def __init__(self, text):
        super().__init__()
        self.tags, self.words = [], []
        self.feed(text)

    def handle_starttag(self, tag, attrs):
        self.tags.append(tag)

    def handle_data(self, data):
        self.words.append(data)


def test_a_notebook_shows_a_row_for_each_trial_and_the_plots_and_a_terminal_one_line(example):
    result = example["result"]
    text = result._repr_html_()
    page = Fragment(text)
    assert page.tags.count("tr") == 1 + len(result.trials)
    assert page.tags.count("svg") == page.tags.count("figure") == 2
    winner = result.winner()
    leads = f"trial {winner.number} leads with accuracy {winner.epochs[-1]['accuracy']:.4f} after 9 of 9 epochs"
    assert leads in " ".join(page.words)
    assert "The best of many trials looks better than it is." in " ".join(page.words)
    assert "http:" not in re.sub(r'xmlns(:xlink)?="[^"]*"', "", text), "it loads something"
    assert repr(result).startswith("<SearchResult 'digits': 6 of 6 trials have ended; " + leads)
    assert "\n" not in repr(result)


def test_the_same_call_goes_on_where_the_search_is_and_takes_no_other_space(example, tmp_path):
    objective, space, defaults = example["digits"], example["space"], {**example["defaults"], "epochs": 2}
    space = {**space, "search": {"metric": "accuracy", "num_trials": 2, "scheduler": "none"}}
    seen = []
    where = {"defaults": defaults, "directory": tmp_path / "digits"}
    first = optimize(objective, space, **where, budget=Budget(epochs=3), follow=seen.append)
    assert not first.complete
    assert sum(len(trial.epochs) for trial in first.trials) == 3
    before = [event for event, _ in read_events(tmp_path / "digits" / FILE_NAME)]
    assert seen == before
    space["search"]["num_trials"] = 3
    second = optimize(objective, space, **where)
    assert second.complete
    assert [len(trial.epochs) for trial in second.trials] == [2, 2, 2]
    assert [event for event, _ in read_events(tmp_path / "digits" / FILE_NAME)][: len(before)] == before
    with pytest.raises(InvalidInput) as error:
        optimize(objective, {**space, "search": {"metric": "loss"}}, **{**where, "defaults": {**defaults, "width": 9}})
    assert [line.partition(": must")[0].rpartition("/")[2] for line in error.value.problems] == [
        "digits: space", "digits: defaults",
    ]  # fmt: skip
    with pytest.raises(InvalidInput, match=r"search\.num_trials: must be at least the 3 that the search there has"):
        optimize(objective, {**space, "search": {**space["search"], "num_trials": 2}}, **where)


@pytest.mark.parametrize(
    ("space", "messages"),
    [
        ({"space": {"x": {"low": 0.0, "high": 1.0}}}, ["space: search.metric: must name what the objective reports"]),
        (
            {"search": {"metric": "m", "cost": "m"}, "space": {"y": {"low": 0.0, "high": 1.0}}},
            ["space: search.cost: must not be given", "space: space.y: must be a parameter"],
        ),
    ],
)
def test_a_wrong_space_is_refused_before_anything_is_written(tmp_path, space, messages):
    with pytest.raises(InvalidInput) as error:
        optimize(None, space, defaults={"epochs": 3, "x": 0.5}, directory=tmp_path / "s")
    for line, message in zip(error.value.problems, messages, strict=True):
        assert line.startswith(message)
    assert list(tmp_path.iterdir()) == []
