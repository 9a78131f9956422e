"""A search of an objective of one's own: how scikit-learn's network learns its digits. `python own_objective.py`."""

from pathlib import Path

import joblib
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from sklearn.neural_network import MLPClassifier

from fer_search import Report, optimize


def digits(parameters, resume_from):
    """Yield a report after each epoch; the search stops asking when it has seen enough."""
    fit, judged, labels, truth = train_test_split(*load_digits(return_X_y=True), random_state=0)
    rate, width = parameters["learning_rate"], parameters["width"]
    model = MLPClassifier((width,), learning_rate_init=rate, random_state=0)
    if resume_from:
        model = joblib.load(resume_from / "model")
    while True:
        model.partial_fit(fit, labels, classes=range(10))
        yield Report({"accuracy": model.score(judged, truth)}, save=lambda path: joblib.dump(model, path / "model"))


if __name__ == "__main__":
    space = {
        "search": {"metric": "accuracy", "num_trials": 6},
        "space": {"learning_rate": {"low": 1e-4, "high": 1e-1, "log": True}, "width": {"low": 8, "high": 128}},
    }
    defaults = {"epochs": 9, "learning_rate": 1e-3, "width": 32}
    result = optimize(digits, space, defaults=defaults, directory=Path("runs/digits"))
    print(result, result.to_dataframe(), sep="\n")
