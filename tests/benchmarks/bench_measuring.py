"""How fast a trained network is measured on a CPU, beside batches and memory that were left to their defaults.

    python tests/benchmarks/bench_measuring.py [--rounds 2]

The default network on random faces, as `evaluate` and `export --ensemble` ask it: as it is, with 512 faces at a time
and the memory that is freed given back to the kernel, and with 512 at a time alone. Each in a process of its own, in
turn; their logits must add up to the same.
"""

import argparse
import resource
import subprocess
import sys
import time
from statistics import median

import numpy as np
import torch

from fer_search.recipe import Recipe
from fer_search.training import evaluation
from fer_search.training.model import build_model

NUM_FACES = 1024
WAYS = {
    "as it is": (True, evaluation.CPU_BATCH),
    "512 at a time, memory given back": (False, 512),
    "512 at a time": (True, 512),
}
"""Whether freed memory is kept, and how many faces pass at a time."""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=2)
    parser.add_argument("--way", choices=WAYS, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.way:
        measure(*WAYS[arguments.way])
        return
    found: dict[str, list[list[float]]] = {way: [] for way in WAYS}
    for _ in range(arguments.rounds):
        for way, results in found.items():
            done = subprocess.run([sys.executable, __file__, "--way", way], check=True, capture_output=True, text=True)
            results.append([float(word) for word in done.stdout.split()])
    for way, results in found.items():
        speed, megabytes, total = (median(column) for column in zip(*results, strict=True))
        assert total == found["as it is"][0][2], "other logits"
        ratios = [mine[0] / other[0] for mine, other in zip(found["as it is"], results, strict=True)]
        print(
            f"{way}: {speed:.0f} faces a second, {megabytes:.0f} MB at most, x {min(ratios):.2f} to {max(ratios):.2f}"
        )


def measure(keep: bool, batch: int) -> None:
    """Print faces a second, the process's peak in MB and the sum of the logits."""
    evaluation.CPU_BATCH = batch
    if not keep:
        evaluation.keep_freed_memory = lambda: None
    torch.manual_seed(0)
    network = build_model(Recipe().replace({"pretrained": False}))
    faces = torch.tensor(np.random.default_rng(0).integers(0, 256, (NUM_FACES, 48, 48), dtype=np.uint8))
    evaluation.predict_logits(network, faces[:batch])
    start = time.perf_counter()
    logits = evaluation.predict_logits(network, faces)
    seconds = time.perf_counter() - start
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(NUM_FACES / seconds, peak, float(logits.double().sum()))


if __name__ == "__main__":
    main()
