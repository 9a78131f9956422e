"""Faces and recipes small enough for a test, and no random state left behind."""

import gc
import os
import secrets
import shutil
import subprocess
import sys
import time
from collections import namedtuple
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

# Before torch and BLAS are loaded: on networks as small as these a second thread only doubles what they cost. Those
# that a test asks for do not wait for each other in a spin loop.
os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("GOMP_SPINCOUNT", "1000")
os.environ.setdefault("RAY_worker_niceness", "0")  # not 15: a test waits for its workers while other tests compute

import numpy as np
import pytest

from fer_search.cli import main
from fer_search.data.faces import Faces
from fer_search.data.synthetic import synthesize
from fer_search.recipe import Recipe
from fer_search.tracking_uri import local_store

LONGEST = (
    "test_workflow.py", "test_faults.py", "test_retraining.py", "test_tracking_process.py", "test_every_field.py",
    "test_run.py", "test_memory.py", "test_states.py", "test_calibrations.py", "test_capture.py", "test_packing.py",
    "test_imports.py", "test_state.py", "test_label_noise.py", "test_connection.py", "test_storage.py",
    "test_html_report.py", "test_trainer.py", "test_emulator.py", "test_combination.py",
)  # fmt: skip
Done = namedtuple("Done", "returncode stdout stderr")
RAY = """
import sys, ray
ray._private.node.Node.start_log_monitor = lambda self: None  # it reads all logs ten times a second, for nobody
ray.init(address="local", num_cpus=2, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
print(ray.get_runtime_context().gcs_address, flush=True)
sys.stdin.read()
"""


def pytest_collection_modifyitems(items):
    """Begin with the longest files, so that none of them is left for the end, when one process would run it alone."""
    items.sort(key=lambda item: LONGEST.index(item.path.name) if item.path.name in LONGEST else len(LONGEST))


def pytest_collection_finish():
    """Take what was loaded by now for good: each training collects garbage, and need not look through all of that."""
    gc.collect()
    gc.freeze()


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
def with_stores(tmp_path_factory):
    """Return a function that puts empty stores of MLflow and Optuna into a directory: making them takes seconds."""
    from mlflow import MlflowClient
    from optuna.storages import RDBStorage

    made = tmp_path_factory.mktemp("stores")
    MlflowClient(local_store(made)).search_experiments()
    RDBStorage(f"sqlite:///{made / 'optuna.db'}")

    def put(directory):
        shutil.copytree(made, directory, dirs_exist_ok=True)
        return directory

    return put


@pytest.fixture
def two_threads():
    """Compute with two threads, as a user's process does on any machine."""
    before = torch_threads(2)
    yield
    torch_threads(before)


def torch_threads(count):
    """Set the number of torch's threads and return what it was."""
    import torch

    before = torch.get_num_threads()
    torch.set_num_threads(count)
    return before


@pytest.fixture(scope="session")
def an_hour_goes_by():
    """A context in which it is an hour later as soon as a journal has so many epochs, so that none waits for it."""

    @contextmanager
    def clock(journal, *, num_epochs):
        monotonic = time.monotonic

        def later():
            is_due = journal.exists() and journal.read_bytes().count(b'"epoch_ended"') >= num_epochs
            return monotonic() + (3600 if is_due else 0)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(time, "monotonic", later)
            yield

    return clock


@pytest.fixture(scope="session")
def shared_ray():
    """The address of a Ray of two cores, started once for all files of this process that are not about starting one."""
    os.environ.setdefault("RAY_AUTH_TOKEN", secrets.token_hex(32))  # there and here, whatever is started in between
    os.environ["RAY_AUTH_MODE"] = "token"  # which starting a Ray sets, and connecting to one does not
    holder = subprocess.Popen([sys.executable, "-c", RAY], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)
    yield holder.stdout.readline().strip()
    holder.communicate("")


@pytest.fixture(scope="module")
def cluster(shared_ray):
    """The address of the shared Ray, to which this process is connected: what starts no Ray of its own runs on it."""
    import ray
    from ray._raylet import AuthenticationTokenLoader, Config

    Config.initialize("")  # reads the variables again
    AuthenticationTokenLoader.instance().reset_cache()
    ray.init(shared_ray, log_to_driver=False, logging_level="ERROR")
    yield shared_ray
    ray.shutdown()


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
