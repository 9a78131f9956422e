"""Faces and recipes small enough for a test, and no random state left behind."""

import os
import subprocess
import sys
from collections import namedtuple
from dataclasses import dataclass
from pathlib import Path

# Before torch is loaded: two threads on a busy machine otherwise wait for each other in a spin loop.
os.environ.setdefault("GOMP_SPINCOUNT", "1000")

import numpy as np
import pytest

from fer_search.cli import main
from fer_search.data.faces import Faces
from fer_search.data.synthetic import synthesize
from fer_search.recipe import Recipe

Done = namedtuple("Done", "returncode stdout stderr")


@pytest.fixture(scope="session")
def faces() -> Faces:
    return synthesize(400, seed=3)


@pytest.fixture(scope="session")
def fit(faces: Faces) -> Faces:
    return faces.take(np.arange(0, 100))


@pytest.fixture(scope="session")
def validation(faces: Faces) -> Faces:
    return faces.take(np.arange(100, 160))


@pytest.fixture(scope="session")
def small() -> Recipe:
    """A recipe with every technique of the training on that a CPU trains in a second, whatever the defaults are."""
    return Recipe().replace(
        {
            "backbone": "test_efficientnet", "pretrained": False, "stem_stride": 2, "fusion_width": 0,
            "dropout": 0.2, "drop_path": 0.1,
            "epochs": 2, "batch_size": 16, "accumulation": 2,
            "optimizer": "sgd", "max_lr": 0.01, "div_factor": 2.0, "final_div_factor": 1e4, "pct_start": 0.3,
            "momentum": 0.9, "weight_decay": 5e-4, "grad_clip": 1.0, "sam_rho": 0.05, "label_smoothing": 0.1,
            "ema_decay": 0.999, "flip_probability": 0.5, "shift_pixels": 4, "randaugment_magnitude": 9.0,
            "mixup_alpha": 0.4, "cutmix_alpha": 0.5, "mix_probability": 0.5,
        }
    )  # fmt: skip


@dataclass(frozen=True)
class Disk:
    """A small file system at `path`, to be broken and mended."""

    path: Path

    def fill(self) -> None:
        subprocess.run(["dd", "if=/dev/zero", f"of={self.path / 'filler'}", "bs=512"], capture_output=True)

    def make_read_only(self) -> None:
        subprocess.run(["mount", "-o", "remount,ro", self.path], check=True)

    def mend(self) -> None:
        subprocess.run(["mount", "-o", "remount,rw", self.path], check=True)
        (self.path / "filler").unlink(missing_ok=True)


@pytest.fixture
def disk(tmp_path):
    path = tmp_path / "disk"
    path.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=24m", "tmpfs", path], capture_output=True)
    if mounted.returncode:
        pytest.skip("a file system cannot be mounted here")
    yield Disk(path)
    subprocess.run(["umount", "-l", path], check=True)


@pytest.fixture
def fer_search(tmp_path, monkeypatch, capsys):
    """Run the console script's own function in `tmp_path`."""

    def run(*arguments):
        monkeypatch.setattr(sys, "argv", ["fer-search", *map(str, arguments)])
        monkeypatch.chdir(tmp_path)
        try:
            main()
            code = 0
        except SystemExit as stop:
            code = stop.code or 0
        return Done(code, *capsys.readouterr())

    return run


@pytest.fixture(scope="session")
def knowing():
    """Return a function that makes the weights of a network that knows some faces, without training the network: by its
    classifier, on features under the batch statistics that `renew_statistics` finds in other faces."""
    import torch
    from sklearn.linear_model import LogisticRegression

    from fer_search.training.evaluation import predict_logits
    from fer_search.training.model import build_model
    from fer_search.training.soup import renew_statistics

    def make(recipe: Recipe, fit: Faces, known: Faces) -> dict[str, torch.Tensor]:
        network, features = build_model(recipe), []
        renew_statistics(network, fit, recipe, device=torch.device("cpu"))
        hook = network.classifier.register_forward_pre_hook(lambda _, inputs: features.append(inputs[0]))
        predict_logits(network, torch.tensor(known.pixels))
        hook.remove()
        found = torch.cat(features)
        scale = found.std(0) + 1e-6
        linear = LogisticRegression(C=0.1, max_iter=500).fit(found / scale, known.labels)
        with torch.no_grad():
            network.classifier.weight.copy_(torch.tensor(linear.coef_) / scale)
            network.classifier.bias.copy_(torch.tensor(linear.intercept_))
        return network.state_dict()

    return make


@pytest.fixture(scope="session")
def misled():
    """Return a function that moves the classifier of a network some way in a random direction, the opposite one for the
    opposite scale."""
    import torch

    def move(state: dict[str, torch.Tensor], *, seed: int, scale: float) -> dict[str, torch.Tensor]:
        weight = state["classifier.weight"]
        noise = torch.randn(weight.shape, generator=torch.Generator().manual_seed(seed))
        return {**state, "classifier.weight": weight + scale * weight.std() * noise}

    return move


@pytest.fixture(scope="session")
def bundle(tmp_path_factory, small):
    """A bundle of a network after a few steps, so that it tells faces apart, measured as a training is."""
    from dataclasses import asdict

    import torch
    from safetensors.torch import save_file

    from fer_search.bundle import export_bundle
    from fer_search.record import describe_data, split_for
    from fer_search.runs import RESULT, write_json
    from fer_search.training.measurement import measure_training
    from fer_search.training.model import build_model
    from fer_search.training.run import WEIGHTS

    directory, data = tmp_path_factory.mktemp("bundle"), synthesize(200, seed=3)
    splits, network = split_for(data, small), build_model(small)
    images = torch.tensor(splits.fit.pixels[:, None] / 255, dtype=torch.float32)
    optimizer = torch.optim.Adam(network.parameters(), 0.01)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        for _ in range(30):
            optimizer.zero_grad()
            torch.nn.functional.cross_entropy(network(images), torch.tensor(splits.fit.labels)).backward()
            optimizer.step()
    save_file(network.state_dict(), directory / WEIGHTS)
    prediction, metrics, _ = measure_training(network.eval(), splits)
    result = {
        "recipe": small.model_dump(),
        "chosen": {"epoch": 2, "kind": "ema", "val_accuracy": prediction.val_accuracy["plain"]},
        "prediction": asdict(prediction),
        "data": describe_data("synthetic", data, splits),
        "metrics": metrics,
        "trained_on": {"device": "cpu", "num_threads": 3},
    }
    write_json(directory / RESULT, result)
    seeds = {"0": prediction.val_accuracy["plain"], "17": 0.125}
    export_bundle(directory, directory / "bundle", selection={"seed": 0, "val_accuracy_of_seeds": seeds})
    return directory / "bundle"
