"""Learning curves whose formula is known: what an emulator has to find and a simulation can be judged by."""

from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from scipy.special import expit

from fer_search.emulator import Emulator, fit_emulator
from fer_search.recorded_curves import RecordedCurves

HORIZON = 9
TABLE = {
    "search": {"seed": 3},
    "base": {"epochs": HORIZON},
    "space": {
        "max_lr": {"low": 1e-4, "high": 1e-1, "log": True},
        "dropout": {"low": 0.0, "high": 0.5},
        "optimizer": {"choices": ["sgd", "adamw"]},
        "momentum": {"when": {"optimizer": ["sgd"]}, "low": 0.8, "high": 0.99},
    },
}


@dataclass(frozen=True)
class Family:
    """Logits that end at a bowl over the parameters; with `crossing`, good learning rates begin below the others."""

    noise: float = 0.0
    crossing: bool = True

    def points(self, count, seed=0):
        rng = np.random.default_rng(seed)
        found = []
        for _ in range(count):
            point = {"max_lr": float(10 ** rng.uniform(-4, -1)), "dropout": float(rng.uniform(0, 0.5))}
            if rng.random() < 0.5:
                point |= {"optimizer": "sgd", "momentum": float(rng.uniform(0.8, 0.99))}
            else:
                point |= {"optimizer": "adamw"}
            found.append(point)
        return found

    def logits(self, point):
        rate = (np.log10(point["max_lr"]) + 4) / 3
        bowl = 0.8 - 3 * (rate - 0.6) ** 2 - 2 * (point["dropout"] - 0.2) ** 2
        bowl -= 5 * (point["momentum"] - 0.9) ** 2 if point["optimizer"] == "sgd" else 0.1
        speed = 0.2 + 0.6 * rate if self.crossing else 0.5
        return bowl - 2 * np.exp(-speed * np.arange(1, HORIZON + 1))

    def finals(self, points):
        return np.array([expit(self.logits(point)[-1]) for point in points])

    def recorded(self, count, seed=0, **search):
        points = self.points(count, seed)
        rng = np.random.default_rng([seed, 1])
        logits = np.array([self.logits(point) for point in points])
        values = expit(logits + self.noise * rng.standard_normal(logits.shape))
        table = {**TABLE, "search": {**TABLE["search"], **search}}
        return RecordedCurves(table, points, {"onecycle": {"val_accuracy": values}}, "a formula")


def change(recorded, change_values, **fields):
    """Return recorded curves of which a copy of the values was changed."""
    values = recorded.curves["onecycle"]["val_accuracy"].copy()
    change_values(values)
    return replace(recorded, curves={"onecycle": {"val_accuracy": values}}, **fields)


@pytest.fixture(scope="session")
def make_family():
    return Family


@pytest.fixture(scope="session")
def changed():
    return change


@pytest.fixture(scope="session")
def noisy_emulator() -> Emulator:
    return fit_emulator(Family(noise=0.05).recorded(40), source=Path("family"))


@pytest.fixture(scope="session")
def clear_emulator() -> Emulator:
    """Every epoch orders the configurations as the last one does."""
    return fit_emulator(Family(crossing=False).recorded(40), source=Path("family"))
