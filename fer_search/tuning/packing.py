"""How many trials are best run at once on a GPU, or on the cores of a machine without one: measured on a cluster."""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import ray
from ray.exceptions import ActorDiedError, OutOfMemoryError
from ray.util.placement_group import PlacementGroup, placement_group, remove_placement_group
from ray.util.scheduling_strategies import PlacementGroupSchedulingStrategy

from fer_search.errors import InvalidInput, problem
from fer_search.tuning.connection import Resources, live_nodes
from fer_search.tuning.objective import Objective, ReportLike

COUNTS = (1, 2, 4, 8)
WARM_REPORTS = 2
IDLE_SECONDS = 60.0
"""How long what is measured waits for a GPU, or a machine, of its own."""


@dataclass(frozen=True)
class Packing:
    """`count` trials at once on one GPU, or one machine, of which each occupies `resources`.

    `rate` is how many reports a second all of them made, None where they did not fit into memory. `mps`: whether
    NVIDIA's Multi-Process Service was there, without which the kernels of two processes never run at once.
    """

    count: int
    resources: Resources
    rate: float | None
    mps: bool


def possible_packings(node: Mapping[str, float], asked: Resources) -> list[tuple[int, Resources]]:
    """Return how many trials may share a GPU of `node`, where trials are to have one, or else its cores, and what each
    would occupy; one that fills it is always among them. All GPUs of the node are to be shared alike.
    """
    cpus, gpus = int(node.get("CPU", 0.0)), int(node.get("GPU", 0.0))
    most = asked.max_concurrent or max(COUNTS) * max(1, gpus)
    if asked.gpus:
        counts = [n for n in COUNTS if n == 1 or (n * gpus * asked.cpus <= cpus and n * gpus <= most)]
        return [(n, replace(asked, gpus=1 / n)) for n in counts]
    counts = [n for n in COUNTS if n == 1 or (n <= cpus and n <= most)]
    return [(n, replace(asked, cpus=max(1, cpus // n))) for n in counts]


def measure_packings(
    objective_on: Callable[[Resources], Objective], parameters: Mapping[str, Any], asked: Resources, *, seconds: float
) -> list[Packing]:
    """Run one to eight of the same trial at once on one GPU, or machine, of the connected cluster, for so long each.

    What does not fit ends it: twice as many would not either. Raises InvalidInput where there is none, or none idle.
    """
    kind = "GPU" if asked.gpus else "CPU"
    node = max(live_nodes(), key=lambda node: (node.get(kind, 0.0), node.get("CPU", 0.0)))
    if node.get(kind, 0.0) < 1:
        raise InvalidInput(problem("command line", "pack", f"must find a node with a {kind}", dict(node)))
    found: list[Packing] = []
    for count, resources in possible_packings(node, asked):
        found.append(_measure(objective_on(resources), parameters, count, resources, seconds))
        if found[-1].rate is None:
            break
    return found


def best_packing(packings: Sequence[Packing]) -> Packing:
    """Return the one with the most reports a second, of equals the fewest trials; raises InvalidInput if none fits."""
    fitting = [packing for packing in packings if packing.rate is not None]
    if not fitting:
        raise InvalidInput(problem("command line", "pack", "must find room for one trial", "too little memory"))
    return max(fitting, key=lambda packing: packing.rate or 0.0)


def _measure(
    objective: Objective, parameters: Mapping[str, Any], count: int, resources: Resources, seconds: float
) -> Packing:
    whole = {"CPU": float(count * resources.cpus), "GPU": 1.0 if resources.gpus else 0.0}
    group = placement_group([{kind: amount for kind, amount in whole.items() if amount}])
    try:
        if not group.wait(IDLE_SECONDS):
            rule = f"must find a node with {whole['CPU']:g} CPUs and {whole['GPU']:g} GPUs idle"
            raise InvalidInput(problem("command line", "pack", rule, f"none for {IDLE_SECONDS:.0f} s"))
        probes = [_probe(resources, group).remote(objective, dict(parameters)) for _ in range(count)]
        try:
            mps = ray.get([probe.warm.remote() for probe in probes])
            rates = ray.get([probe.run.remote(seconds) for probe in probes])
        except (MemoryError, OutOfMemoryError, ActorDiedError):
            return Packing(count, resources, None, False)
        finally:
            for probe in probes:
                ray.kill(probe)
        return Packing(count, resources, sum(rates), all(mps))
    finally:
        remove_placement_group(group)


def _probe(resources: Resources, group: PlacementGroup) -> Any:
    strategy = PlacementGroupSchedulingStrategy(group, placement_group_bundle_index=0)
    actor: Any = ray.remote(_Probe)
    return actor.options(num_cpus=resources.cpus, num_gpus=resources.gpus, scheduling_strategy=strategy)


class _Probe:
    """A trial that is timed beside others."""

    def __init__(self, objective: Objective, parameters: dict[str, Any]) -> None:
        self.objective, self.parameters = objective, parameters
        self.reports: Iterator[ReportLike]

    def warm(self) -> bool:
        """Begin, leave the slow first reports behind, and tell whether MPS is there."""
        self.reports = iter(self.objective(self.parameters, None))
        for _ in range(WARM_REPORTS):
            next(self.reports)
        return (Path(os.environ.get("CUDA_MPS_PIPE_DIRECTORY", "/tmp/nvidia-mps")) / "control").exists()

    def run(self, seconds: float) -> float:
        """Return the reports a second, from one report to another."""
        start, count = time.perf_counter(), 0
        while (passed := time.perf_counter() - start) < seconds or not count:
            next(self.reports)
            count += 1
        return count / passed
