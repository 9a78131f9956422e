"""Images per second of a SAM training: ours, the loop that people write, and the floor that the network itself sets.

    python tests/benchmarks/bench_training.py speed [--network small] [--images 2048] [--rounds 3]
    python tests/benchmarks/bench_training.py packing [--trials 1,2,4,8] [--seconds 10] [--images 6400]
    python tests/benchmarks/bench_training.py profile

`speed` takes epochs in turn, in one process; the first round does not count. The floor is forward and backward alone,
twice, on random data that is on the device already; on a GPU also as a CUDA graph. `packing` trains so many processes
on one device at once, for so many seconds each, and `profile` lists the kernels of captured steps (both on a GPU only).
Networks: `default` is the default recipe's, `small` is timm's test_efficientnet without fusion. All with SAM,
RandAugment, MixUp and CutMix, batches of 64; (low to high) are the extremes of the rounds.
"""

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import torch
from usual_loop import usual_epochs

from fer_search.data.faces import EMOTIONS, Faces
from fer_search.recipe import Recipe
from fer_search.training.capture import WARM_STEPS, CudaGraphs
from fer_search.training.loss import image_losses
from fer_search.training.model import build_model
from fer_search.training.step import precision_of
from fer_search.training.trainer import EpochReport, Trainer, choose_device

SMALL = {"backbone": "test_efficientnet", "stem_stride": 2, "fusion_width": 0}
WARM_EPOCHS = 2


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=("speed", "packing", "profile"), default="speed")
    parser.add_argument("--network", choices=("default", "small"), default="small")
    parser.add_argument("--images", type=int, default=2048)
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--trials", default="1,2,4,8")
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    device = choose_device()
    if arguments.part != "speed" and device.type == "cpu":
        parser.exit(message=f"{arguments.part}: there is no GPU\n")
    {"speed": speed, "packing": packing, "profile": profile}[arguments.part](arguments, device)


def recipe_of(network: str) -> Recipe:
    """Return the recipe that is timed: pixels are random, so the weights may be too."""
    changes = {
        "pretrained": False, "epochs": 10_000, "batch_size": 64, "accumulation": 1, "sam_rho": 0.05,
        "randaugment_magnitude": 9.0, **(SMALL if network == "small" else {}),
    }  # fmt: skip
    return Recipe().replace(changes)


def speed(arguments: argparse.Namespace, device: torch.device) -> None:
    """Print images per second of each kind of epoch, and ratios within the rounds."""
    recipe, faces = recipe_of(arguments.network), random_faces(arguments.images)
    validation, bf16 = random_faces(64), precision_of(recipe, device) == "bf16"
    kinds: dict[str, Callable[[], float]] = {
        "ours": trained(Trainer(recipe, faces, validation, device=device), device),
        "floor": floor(recipe, device, arguments.images, bf16=bf16, captured=False),
        "usual": timed(usual_epochs(build_model(recipe), faces, recipe, device, bf16=bf16), arguments.images, device),
    }
    if device.type == "cuda":
        kinds["floor, captured"] = floor(recipe, device, arguments.images, bf16=bf16, captured=True)
        kinds["ours, not captured"] = trained(Trainer(recipe, faces, validation, device=device, captured=False), device)
    name = torch.cuda.get_device_name() if device.type == "cuda" else f"CPU, {torch.get_num_threads()} threads"
    print(f"{name}, torch {torch.__version__}, {arguments.network} network, batch 64, {'bf16' if bf16 else 'fp32'}")
    found: dict[str, list[float]] = {kind: [] for kind in kinds}
    for number in range(arguments.rounds + 1):
        for kind, epoch in kinds.items():
            value = epoch()
            if number:
                found[kind].append(value)
    for kind, values in found.items():
        print(f"{kind:20} {spread(values)} images/s")
    for kind in kinds:
        if kind != "ours":
            print(f"ours / {kind:13} {spread([a / b for a, b in zip(found['ours'], found[kind], strict=True)])}")


def trained(trainer: Trainer, device: torch.device) -> Callable[[], float]:
    """Return what trains another epoch and returns its images per second."""
    epochs = warm(trainer) if device.type == "cuda" else iter(trainer)
    return lambda: next(epochs).metrics["images_per_second"]


def warm(trainer: Trainer) -> Iterator[EpochReport]:
    """Return the epochs of a training, after the first few, in which its steps are recorded."""
    epochs = iter(trainer)
    for _ in range(WARM_EPOCHS):
        next(epochs)
    return epochs


def timed(epochs: Iterator[Any], images: int, device: torch.device) -> Callable[[], float]:
    """Return what runs another epoch and returns its images per second; the usual loop leaves the rest out."""

    def epoch() -> float:
        start = time.perf_counter()
        next(epochs)
        synchronize(device)
        return images // 64 * 64 / (time.perf_counter() - start)

    return epoch


def floor(recipe: Recipe, device: torch.device, images: int, *, bf16: bool, captured: bool) -> Callable[[], float]:
    """Return what takes an epoch of bare passes and returns its images per second."""
    model = build_model(recipe).to(device, memory_format=torch.channels_last).train()
    batch = torch.rand((64, 1, 48, 48), device=device).contiguous(memory_format=torch.channels_last)
    targets, weights = torch.softmax(torch.rand((64, 7), device=device), 1), torch.ones(7, device=device)

    def passes() -> None:
        for _ in range(2):
            model.zero_grad(set_to_none=True)
            with torch.autocast(device.type, dtype=torch.bfloat16, enabled=bf16):
                outputs = model.outputs(batch)
            torch.autograd.backward(image_losses(outputs, targets, weights, recipe).mean())

    step = passes
    if captured:
        graphs = CudaGraphs(device)
        for _ in range(WARM_STEPS):
            graphs.warm(passes)
        _, step = graphs.record(passes, [])

    def epoch() -> float:
        synchronize(device)
        start = time.perf_counter()
        for _ in range(images // 64):
            step()
        synchronize(device)
        return images // 64 * 64 / (time.perf_counter() - start)

    return epoch


def packing(arguments: argparse.Namespace, device: torch.device) -> None:
    """Print images per second of all processes together, by how many there are."""
    context = multiprocessing.get_context("spawn")
    alone = None
    print("trials  images/s together  against one  MiB each (peak of tensors)")
    for count in map(int, arguments.trials.split(",")):
        barrier, results = context.Barrier(count), context.Queue()
        processes = [
            context.Process(
                target=pack, args=(arguments.network, arguments.images, arguments.seconds, barrier, results)
            )
            for _ in range(count)
        ]
        for process in processes:
            process.start()
        found = [results.get(timeout=300) for _ in processes]
        for process in processes:
            process.join()
        together = sum(rate for rate, _ in found)
        alone = alone or together
        print(f"{count:6} {together:18.0f} {together / alone:12.2f} {max(peak for _, peak in found):8.0f}", flush=True)


def pack(network: str, images: int, seconds: float, barrier: Any, results: Any) -> None:
    """Train beside others, when all are ready, and tell how fast."""
    epochs = warm(Trainer(recipe_of(network), random_faces(images), random_faces(64), device=choose_device()))
    barrier.wait()
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        next(epochs)
        done += images
    results.put((done / (time.perf_counter() - start), torch.cuda.max_memory_allocated() / 2**20))


def profile(arguments: argparse.Namespace, device: torch.device) -> None:
    """Print where captured steps spend the GPU's time."""
    epochs = warm(Trainer(recipe_of(arguments.network), random_faces(1280), random_faces(64), device=device))
    activities = [torch.profiler.ProfilerActivity.CUDA, torch.profiler.ProfilerActivity.CPU]
    with torch.profiler.profile(activities=activities) as profiler:
        start = time.perf_counter()
        next(epochs)
        synchronize(device)
        seconds = time.perf_counter() - start
    kernels = [event for event in profiler.events() if event.device_type == torch.autograd.DeviceType.CUDA]
    busy = sum(event.self_device_time_total for event in kernels) / 1e6
    print(f"20 steps and a validation: {seconds:.3f} s, {len(kernels)} kernels and copies, {busy:.3f} s on the GPU")
    print(profiler.key_averages().table(sort_by="self_device_time_total", row_limit=25, max_name_column_width=90))


def random_faces(count: int) -> Faces:
    """Return noise as faces: what a training costs does not depend on what they show."""
    rng = np.random.default_rng(0)
    pixels = rng.integers(0, 256, (count, 48, 48), dtype=np.uint8)
    return Faces(
        pixels,
        rng.integers(0, len(EMOTIONS), count),
        np.full(count, "Training"),
        np.array([f"{i}" for i in range(count)]),
    )


def synchronize(device: torch.device) -> None:
    """Wait for what the device was given to do."""
    if device.type == "cuda":
        torch.cuda.synchronize()


def spread(values: list[float]) -> str:
    """Return the median and the extremes."""
    return f"{statistics.median(values):9.2f} ({min(values):.2f} to {max(values):.2f})"


if __name__ == "__main__":
    main()
