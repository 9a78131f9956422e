"""Trainings that run out of memory, for real: in a process that may have so much and no more.

python test_memory.py DIRECTORY
"""

import json
import logging
import os
import platform
import re
import resource
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from trial_worker import trainable

from fer_search.data.synthetic import synthesize
from fer_search.journal import FILE_NAME, Journal, read_journal, reproducible
from fer_search.recipe import Recipe
from fer_search.training import evaluation, trainer
from fer_search.training.objective import TrainingObjective
from fer_search.training.run import train_to_end
from fer_search.training.trainer import Trainer
from fer_search.tuning.connection import Resources
from fer_search.tuning.exhaustive import ExhaustiveState, Training
from fer_search.tuning.run import run_trials

CPU = torch.device("cpu")
HEADROOM = 80_000_000  # bytes; a micro-batch of 64 takes more before its backward pass, one of 32 less in all
FACES = synthesize(96, seed=3)
FIT, VALIDATION = FACES.take(np.arange(64)), FACES.take(np.arange(64, 96))
RECIPE = Recipe().replace(
    {
        "backbone": "test_resnet", "pretrained": False, "fusion_width": 0, "drop_path": 0.0,
        "epochs": 3, "batch_size": 64, "accumulation": 1, "pct_start": 0.6,
    }
)  # fmt: skip
SHORTER = RECIPE.replace({"epochs": 2, "pct_start": 0.7})


@pytest.fixture(scope="module")
def short_of_memory(tmp_path_factory):
    """What the script below told, and where."""
    directory = tmp_path_factory.mktemp("memory")
    command = [sys.executable, __file__, str(directory)]
    returned = {"MALLOC_MMAP_THRESHOLD_": "65536"}  # what is freed is no longer counted, whatever the heap looks like
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, env={**os.environ, **returned})
    assert done.returncode == 0, done.stderr
    return json.loads((directory / "told.json").read_text()), directory


def test_a_trial_that_runs_out_of_memory_goes_on_in_smaller_micro_batches_and_says_so(short_of_memory):
    results = short_of_memory[0]["trial"]
    epochs = [result["epoch"] for result in results]
    assert epochs == [1] * (len(results) - 3) + [2, 2, 3]  # each stretch begins with what is known
    assert len(results) > 4
    sizes = [result["metrics"].get("micro_batch_size") for result in results]
    assert set(sizes[:-3]) == {None}
    assert sizes[-3] in (8, 16, 32)
    assert sizes[-2:] == [sizes[-3]] * 2  # also when it was resumed with all the memory there is


@pytest.fixture
def as_there():
    """Compute as the script does."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    enabled, *_ = torch.backends.mkldnn.set_flags(False)
    yield
    torch.backends.mkldnn.set_flags(enabled)
    torch.set_num_threads(threads)


def trained_in(recipe, sizes, directory):
    """What trainings with such micro-batches learn that each go on from the last one's checkpoint, an epoch each."""
    curve = []
    for size in sizes:
        trainer = Trainer(recipe, FIT, VALIDATION, device=CPU, micro_batch_size=size)
        if curve:
            trainer.resume(directory)
        report = next(iter(trainer))
        report.save(directory)
        curve.append(reproducible(report.metrics))
    return curve


@pytest.mark.usefixtures("as_there")
def test_what_it_learns_then_is_what_one_with_such_micro_batches_learns(short_of_memory, tmp_path):
    """Bit for bit, from the checkpoint on that it had when memory ran out."""
    curve = [short_of_memory[0]["trial"][index]["metrics"] for index in (0, -3, -1)]
    size = int(curve[-1]["micro_batch_size"])
    assert [reproducible(metrics) for metrics in curve] == trained_in(RECIPE, [None, size, size], tmp_path)


@pytest.mark.usefixtures("as_there")
def test_a_single_training_does_so_too_even_in_its_first_epoch(short_of_memory, tmp_path):
    told, directory = short_of_memory
    (record,) = read_journal(directory / "single" / FILE_NAME)
    assert record.state == "COMPLETE"
    sizes = [int(metrics["micro_batch_size"]) for metrics in record.epochs]
    assert sizes[0] in (8, 16, 32)
    assert sizes[1] <= sizes[0]
    for size in sizes:
        assert f"goes on with micro-batches of {size} images" in told["warnings"]
    assert [reproducible(metrics) for metrics in record.epochs] == trained_in(SHORTER, sizes, tmp_path)


def test_where_nothing_is_small_enough_it_is_an_ordinary_failure(short_of_memory):
    message = "does not fit, not even with the least memory that it can do with: .*can't allocate memory"
    assert re.search(message, short_of_memory[0]["failure"])


def test_an_objective_that_knows_no_way_to_take_less_fails_likewise(small, tmp_path):
    def full(parameters, resume_from):
        raise MemoryError("the device is full")
        yield

    with pytest.raises(MemoryError, match="not even with the least memory that it can do with: the device is full"):
        trainable(0, small, full, tmp_path).step()


@pytest.mark.parametrize(("batch_size", "sizes"), [(2, []), (3, []), (4, [2]), (33, [16, 8, 4, 2])])
def test_a_micro_batch_has_at_least_two_images(small, batch_size, sizes):
    objective = TrainingObjective(FIT, VALIDATION, device="cpu", threads=1)
    parameters = small.replace({"batch_size": batch_size}).model_dump()
    found = []
    while (objective := objective.smaller(parameters)) is not None:
        found.append(batch_size >> objective.halvings)
    assert found == sizes


def test_with_batch_statistics_a_smaller_micro_batch_is_close_and_without_them_the_same(small):
    """Dropout off, since it is drawn for each micro-batch; 21 images in pairs, the last of which is three."""
    off = {"dropout": 0.0, "drop_path": 0.0, "fusion_width": 0, "batch_size": 21, "accumulation": 1, "sam_rho": 0.05}
    gaps, fit = {}, FIT.take(np.arange(42))
    for backbone in ("test_efficientnet_ln", "test_efficientnet"):
        recipe = small.replace({**off, "backbone": backbone})
        whole, halved = (
            next(iter(Trainer(recipe, fit, VALIDATION, device=CPU, micro_batch_size=size))) for size in (None, 2)
        )
        assert halved.metrics["micro_batch_size"] == 2
        assert halved.metrics["learning_rate"] == whole.metrics["learning_rate"]
        gaps[backbone] = abs(halved.metrics["train_loss"] / whole.metrics["train_loss"] - 1)
        if backbone.endswith("_ln"):
            for ours, theirs in zip(halved.trainer.model.parameters(), whole.trainer.model.parameters(), strict=True):
                torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-5)
    assert gaps["test_efficientnet_ln"] < 1e-5
    assert gaps["test_efficientnet"] < 0.3


def test_fifty_trainings_in_one_worker_take_no_more_memory_than_the_first_ones(small, tmp_path):
    """Of two networks and batch sizes in turn; what each takes at most is what its epochs report."""
    values = {"backbone": ["test_efficientnet", "test_resnet"], "batch_size": [16, 32]}
    tiny = {"epochs": 1, "accumulation": 1, "drop_path": 0.0, "pct_start": 0.9}
    recipes = [small.replace({**tiny, **{key: each[i % 2] for key, each in values.items()}}) for i in range(50)]
    trainings = [Training(recipe.model_dump(), {}) for recipe in recipes]
    state = ExhaustiveState(trainings, Journal(tmp_path / FILE_NAME), metric="val_accuracy", horizon=1)
    objective = TrainingObjective(FIT, VALIDATION, device="cpu", threads=1)
    assert run_trials(objective, state, tmp_path, resources=Resources(max_concurrent=1))
    peaks = [record.epochs[0]["system/system_memory_usage_megabytes"] for record in state.journal.trials.values()]
    assert len(peaks) == 50
    assert max(peaks[-10:]) < 1.02 * max(peaks[:10])


HOLD_AND_RELEASE = """
import json, resource
import torch
from fer_search.training import allocator, usage

def faults():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

def held():
    (line,) = (line for line in open("/proc/self/status") if line.startswith("VmRSS:"))
    return int(line.split()[1]) // 1024

def faults_of_steps():
    before = faults()
    for _ in range(5):
        torch.ones(64 << 20, dtype=torch.uint8)
    return (faults() - before) // 5

told = {"plain": faults_of_steps()}
allocator.keep_freed_memory()
for _ in range(6):  # small things settle in what is free, and the heap grows by as much a few times
    faults_of_steps()
told["keeping"], kept = faults_of_steps(), held()
allocator.release_freed_memory()
told["released"] = kept - held()
device = torch.device("cpu")
of_all = usage.Usage(device).metrics()["system/system_memory_usage_megabytes"]
usage.begin_training()
told["forgotten"] = of_all - usage.Usage(device).metrics()["system/system_memory_usage_megabytes"]
print(json.dumps(told))
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc is told to keep memory")
def test_what_is_freed_is_kept_until_it_is_released_and_a_new_training_has_a_peak_of_its_own():
    done = subprocess.run([sys.executable, "-c", HOLD_AND_RELEASE], capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    told = json.loads(done.stdout)
    assert told["plain"] > 20  # of 64 MiB, in pages of 4 KiB or of 2 MiB
    assert told["keeping"] < told["plain"] / 10
    assert told["released"] > 60  # MiB
    assert told["forgotten"] > 60


def data_bytes():
    """What RLIMIT_DATA counts of this process."""
    (line,) = (line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmData:"))
    return int(line.split()[1]) * 1024


def limit_memory(headroom):
    most = resource.RLIM_INFINITY if headroom is None else data_bytes() + headroom
    resource.setrlimit(resource.RLIMIT_DATA, (most, resource.RLIM_INFINITY))


def main(directory):
    def trial(number):
        return trainable(number, RECIPE, TrainingObjective(FIT, VALIDATION, device="cpu", threads=1), directory)

    for each in (trainer, evaluation):  # what is kept is counted as taken: there would be no knowing what fits
        each.keep_freed_memory = lambda: None
    torch.set_num_threads(1)
    torch.backends.mkldnn.set_flags(False)  # its kernels, one for each size of batch, take memory for good
    logging.basicConfig(filename=directory / "warnings.txt", level=logging.WARNING)
    first = trial(0)
    results = [first.step()]
    limit_memory(HEADROOM)
    while results[-1]["epoch"] < 2:
        results.append(first.step())
    limit_memory(None)
    second = trial(0)
    results += [second.step(), second.step()]
    limit_memory(HEADROOM)
    train_to_end(Trainer(SHORTER, FIT, VALIDATION, device=CPU), directory / "single")
    failing = trial(1)
    failing.config["parameters"] = RECIPE.replace({"image_size": 256}).model_dump()
    limit_memory(20_000_000)
    try:
        failing.step()
        failure = "none"
    except MemoryError as error:
        failure = str(error)
    limit_memory(None)
    warnings = (directory / "warnings.txt").read_text()
    (directory / "told.json").write_text(json.dumps({"trial": results, "warnings": warnings, "failure": failure}))


if __name__ == "__main__":
    main(Path(sys.argv[1]))
