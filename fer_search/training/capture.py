"""Steps of a training as CUDA graphs: at batch 64 a GPU waits for thousands of kernels to be launched one by one."""

import logging
import warnings
from collections import Counter
from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from fer_search.training.step import TrainingStep

WARM_STEPS = 3
"""Steps of a kind that are taken kernel by kernel: they initialise what may not be during a capture."""
SYNCHRONISES = "synchronizing CUDA operation"  # of torch's warning

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class _Graph:
    graph: torch.cuda.CUDAGraph
    indices: Tensor
    found: tuple[Tensor, Tensor]


class CapturedStep:
    """Takes steps as `step` itself does, with the same kernels on the same numbers, but launches each step at once.

    Steps of one kind (so many images, cheap or not) share a graph. The first few are taken kernel by kernel, the last
    of them watched: a network that waits for the device cannot be captured, and then no step is. That is logged, and
    so is what else torch cannot capture.
    """

    def __init__(self, step: TrainingStep) -> None:
        self.step = step
        self.possible = True
        self._taken: Counter[tuple[int, bool]] = Counter()
        self._graphs: dict[tuple[int, bool], _Graph] = {}
        self._stream = torch.cuda.Stream(step.pixels.device)  # type: ignore[no-untyped-call]

    def __call__(self, indices: Tensor, *, cheap: bool) -> tuple[Tensor, Tensor]:
        """Take a step; what it returns is overwritten by the next of its kind."""
        kind = len(indices), cheap
        if self.possible and kind not in self._graphs and self._taken[kind] >= WARM_STEPS:
            self._capture(indices, cheap)
        if kind not in self._graphs:
            self._taken[kind] += 1
            return self._warm(indices, cheap, watched=self.possible and self._taken[kind] == WARM_STEPS)
        captured = self._graphs[kind]
        captured.indices.copy_(indices)
        captured.graph.replay()
        return captured.found

    def _warm(self, indices: Tensor, cheap: bool, *, watched: bool) -> tuple[Tensor, Tensor]:
        """Take a step kernel by kernel, where a capture would, and see whether it waits for the device."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), warnings.catch_warnings(record=watched) as caught:
            if watched:
                warnings.simplefilter("always")
                torch.cuda.set_sync_debug_mode("warn")
            try:
                found = self.step(indices, cheap=cheap)
            finally:
                if watched:
                    torch.cuda.set_sync_debug_mode("default")
        current.wait_stream(self._stream)
        waits = [str(each.filename) for each in caught or [] if SYNCHRONISES in str(each.message)]
        if waits:
            self._give_up(f"{waits[0]} waits for the device")
        return found

    def _capture(self, indices: Tensor, cheap: bool) -> None:
        graph = torch.cuda.CUDAGraph()
        for generator in (self.step.generator, *self.step.dropout.generators):
            graph.register_generator_state(generator)
        static = indices.clone()
        pool = next((each.graph.pool() for each in self._graphs.values()), None)
        try:
            with torch.cuda.graph(graph, pool=pool, stream=self._stream, capture_error_mode="thread_local"):
                found = self.step(static, cheap=cheap)
        except torch.OutOfMemoryError:
            self._renew()
            raise
        except RuntimeError as error:
            self._renew()
            self._give_up(str(error).splitlines()[0])
        else:
            self._graphs[len(indices), cheap] = _Graph(graph, static, found)

    def _renew(self) -> None:
        """Replace the generators that a capture which failed has left unusable."""
        self.step.generator = Generator(self.step.pixels.device).manual_seed(self.step.generator.initial_seed() + 1)
        self.step.dropout.renew()

    def _give_up(self, reason: str) -> None:
        self.possible = False
        self._graphs.clear()
        logger.warning("steps are launched kernel by kernel, which is slower: %s", reason)
