"""How far one driver goes: a simulation of many GPUs whose trials all report to it, with measured service times.

    python tests/benchmarks/scaling.py [--epoch-seconds 1.5] [--report-ms 5] [--suggestion-ms 12] [--epochs 5]
        [--per-gpu 1]

The driver is one server that takes reports in the order in which they come; a trial's next epoch begins when the
report of the one before has been taken. Every `--epochs` reports a trial ends or waits, and the driver suggests.
Epochs vary by a tenth (one standard deviation). Seeded; prints a line for each number of GPUs.
"""

import argparse
import heapq

import numpy as np

GPUS = (1, 10, 100, 300, 1_000, 3_000, 10_000)
ROUNDS = 40
"""Epochs that each place trains in the simulation."""


def simulate(
    places: int, *, epoch_seconds: float, report_seconds: float, suggestion_seconds: float, epochs: int, seed: int = 0
) -> tuple[float, float, float]:
    """Return the share of the time in which places train, the driver's load, and how long a report waits on average."""
    rng = np.random.default_rng(seed)
    lengths = np.maximum(rng.normal(1.0, 0.1, size=(places, ROUNDS)), 0.1) * epoch_seconds
    queue = [(float(rng.uniform(0, epoch_seconds)), place, 0) for place in range(places)]
    heapq.heapify(queue)
    free = busy = waited = trained = 0.0
    taken = 0
    while True:
        arrives, place, done = heapq.heappop(queue)
        service = report_seconds + (suggestion_seconds if done % epochs == 0 else 0.0)
        waited, taken = waited + max(free - arrives, 0.0), taken + 1
        free = max(free, arrives) + service
        busy += service
        if done == ROUNDS:
            break
        trained += float(lengths[place, done])
        heapq.heappush(queue, (free + float(lengths[place, done]), place, done + 1))
    ahead = sum(max(arrives - free, 0.0) for arrives, _, _ in queue)
    return (trained - ahead) / (places * free), busy / free, waited / taken


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--epoch-seconds", type=float, default=1.5)
    parser.add_argument("--report-ms", type=float, default=5.0)
    parser.add_argument("--suggestion-ms", type=float, default=12.0)
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--per-gpu", type=int, default=1)
    arguments = parser.parse_args()
    print("   GPUs  reports/s asked  GPUs train  driver busy  a report waits")
    for gpus in GPUS:
        places = gpus * arguments.per_gpu
        training, busy, wait = simulate(
            places,
            epoch_seconds=arguments.epoch_seconds,
            report_seconds=arguments.report_ms / 1e3,
            suggestion_seconds=arguments.suggestion_ms / 1e3,
            epochs=arguments.epochs,
        )
        asked = places / arguments.epoch_seconds
        print(f"{gpus:7d} {asked:16.1f} {training:11.0%} {busy:12.0%} {wait:13.2f} s")


if __name__ == "__main__":
    main()
