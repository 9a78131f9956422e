"""A bundle's ONNX file against the torch network that it was exported from: latency of a face, faces a second.

    python tests/benchmarks/bench_predict.py [--network default] [--rounds 30]

Both compute the same logits on the CPU, in turn in one process with the same number of threads, with and without the
five views of test-time augmentation. Ratios are within a round, (low to high) their quartiles.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import torch
from bench_training import recipe_of

from fer_search.bundle import write_onnx
from fer_search.data.faces import FER2013
from fer_search.predict import BATCH, read_network
from fer_search.training.model import build_model
from fer_search.training.views import VIEW_SETS, PredictionNet


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--network", choices=("default", "small"), default="default")
    parser.add_argument("--rounds", type=int, default=30)
    arguments = parser.parse_args()
    network = build_model(recipe_of(arguments.network)).eval()
    print(f"{arguments.network} network, {torch.get_num_threads()} threads, torch {torch.__version__}")
    print("views      faces     torch ms      ONNX ms   torch / ONNX           ONNX faces/s")
    with tempfile.TemporaryDirectory() as directory:
        for name, views in VIEW_SETS.items():
            prediction = PredictionNet(network, views=views, temperature=1.0).eval()
            file = Path(directory) / f"{name}.onnx"
            write_onnx(prediction, file)
            for num_faces in (1, BATCH):
                compare(prediction, file, name, num_faces, arguments.rounds)


def compare(prediction: PredictionNet, file: Path, views: str, num_faces: int, rounds: int) -> None:
    """Print how long both take for so many faces."""
    session = read_network(file, FER2013)
    images = np.random.default_rng(0).random((num_faces, 1, 48, 48), dtype=np.float32)
    batch = torch.tensor(images)

    def with_torch() -> object:
        with torch.inference_mode():
            return prediction(batch).numpy()

    def with_onnx() -> object:
        return session.run(["logits"], {"images": images})[0]

    np.testing.assert_allclose(with_onnx(), with_torch(), atol=1e-3)
    pairs = np.array([(milliseconds(with_torch), milliseconds(with_onnx)) for _ in range(rounds)])
    low, ratio, high = np.percentile(pairs[:, 0] / pairs[:, 1], (25, 50, 75))
    ours, theirs = np.median(pairs[:, 1]), np.median(pairs[:, 0])
    print(
        f"{views:8} {num_faces:7} {theirs:12.2f} {ours:12.2f}   {ratio:5.2f} ({low:.2f} to {high:.2f}) "
        f"{1e3 * num_faces / ours:16,.0f}",
        flush=True,
    )


def milliseconds(call: Callable[[], object]) -> float:
    """Return how long a call takes."""
    start = time.perf_counter()
    call()
    return 1e3 * (time.perf_counter() - start)


if __name__ == "__main__":
    main()
