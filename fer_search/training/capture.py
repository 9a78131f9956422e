"""Steps of a training launched at once: at batch 64 a GPU waits for thousands of kernels to be launched one by one."""

import logging
import warnings
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

import torch
from torch import Generator, Tensor

from fer_search.training.step import TrainingStep

T = TypeVar("T")
Found = tuple[Tensor, Tensor]
Kind = tuple[int, bool]

WARM_STEPS = 3
"""Steps of a kind that are taken kernel by kernel: they initialise what may not be during a recording."""
TOLERANCE = 0.1
"""How far a repeated step may end from one taken kernel by kernel, as a share of the step. Another draw of a random
number moves it by about all of it; the order of a sum, which a GPU does not keep, by 1e-4 or so."""
ROUNDING = 1e-6
"""What is no distance for weights in float32, however short a step is."""
SYNCHRONISES = "synchronizing CUDA operation"  # of torch's warning

logger = logging.getLogger(__name__)


class Recorder(Protocol):
    """Records what a device does, to have it done again."""

    def warm(self, take: Callable[[], T]) -> tuple[T, str]:
        """Do something where it will be recorded, and return what it found, and what in it waits for the device."""
        ...

    def record(self, take: Callable[[], T], generators: Sequence[Generator]) -> tuple[T, Callable[[], None]]:
        """Return what does the same again, into the same memory, and leave everything as it was until that is called;
        raises RuntimeError where that cannot be.
        """
        ...


@dataclass(frozen=True)
class _Recorded:
    indices: Tensor
    found: Found
    repeat: Callable[[], None]

    def __call__(self, indices: Tensor) -> Found:
        """Do it again with other images."""
        self.indices.copy_(indices)
        self.repeat()
        return self.found


class CapturedStep:
    """Takes steps as `step` itself does, with the same kernels on the same numbers, but launches each step at once.

    Steps of one kind (so many images, cheap or not) share a recording. It is made after the first few and checked at
    the one after it, whose images, rates and draws are others: from where the training is, it has to lead where a step
    taken kernel by kernel leads. A network that waits for the device, that cannot be recorded or that fails the check
    is trained kernel by kernel, and that is logged.
    """

    def __init__(self, step: TrainingStep, recorder: Recorder) -> None:
        self.step, self.recorder = step, recorder
        self.possible = True
        self.recorded: dict[Kind, _Recorded] = {}
        self._taken: Counter[Kind] = Counter()

    def __call__(self, indices: Tensor, *, cheap: bool) -> Found:
        """Take a step; what it returns is overwritten by the next of its kind."""
        if not self.possible:
            return self.step(indices, cheap=cheap)
        kind = len(indices), cheap
        self._taken[kind] += 1
        if self._taken[kind] > WARM_STEPS + 2:
            return self.recorded[kind](indices)
        if self._taken[kind] == WARM_STEPS + 2:
            return self._checked(indices, kind)
        if self._taken[kind] == WARM_STEPS + 1:
            self._record(indices, kind)
        found, waits = self.recorder.warm(lambda: self.step(indices, cheap=cheap))
        if waits and self._taken[kind] == WARM_STEPS:
            self._give_up(f"{waits} waits for the device")
        return found

    def _record(self, indices: Tensor, kind: Kind) -> None:
        """Make the recording of a kind of step."""
        static = indices.clone()
        try:
            found, repeat = self.recorder.record(lambda: self.step(static, cheap=kind[1]), self.step.generators)
        except torch.OutOfMemoryError:
            self._renew()
            raise
        except RuntimeError as error:
            self._renew()
            self._give_up(str(error).splitlines()[0])
        else:
            self.recorded[kind] = _Recorded(static, found, repeat)

    def _checked(self, indices: Tensor, kind: Kind) -> Found:
        """Take a step kernel by kernel, and give up unless the recording does the same from where it began."""
        before, restore = self._weights(), self.snapshot()
        self.recorded[kind](indices)
        repeated = self._weights()
        restore()
        found, _ = self.recorder.warm(lambda: self.step(indices, cheap=kind[1]))
        after = self._weights()
        gap = float((repeated - after).norm() / ((after - before).norm() + ROUNDING * after.norm()))
        if not gap < TOLERANCE:
            self._give_up(f"a recorded step ends elsewhere, by {gap:.2g} of the step")
        return found

    def snapshot(self) -> Callable[[], None]:
        """Return what brings the training back to where it is now."""
        state = [(tensor, tensor.clone()) for tensor in self.step.state]
        drawn = [(generator, generator.get_state()) for generator in self.step.generators]

        def restore() -> None:
            for tensor, value in state:
                tensor.copy_(value)
            for generator, where in drawn:
                generator.set_state(where)

        return restore

    def _weights(self) -> Tensor:
        return torch.cat([parameter.detach().flatten() for parameter in self.step.model.parameters()])

    def _renew(self) -> None:
        """Replace the generators that a recording which failed has left unusable."""
        device, seed = self.step.pixels.device, self.step.generator.initial_seed()
        self.step.generator = Generator(device).manual_seed(seed + 1)
        self.step.dropout.renew()

    def _give_up(self, reason: str) -> None:
        self.possible = False
        self.recorded.clear()
        logger.warning("steps are launched kernel by kernel, which is slower: %s", reason)


class CudaGraphs:
    """Records CUDA graphs, which share their memory since they run one after the other."""

    def __init__(self, device: torch.device) -> None:
        self._stream = torch.cuda.Stream(device)  # type: ignore[no-untyped-call]
        self._pool = torch.cuda.graph_pool_handle()

    def warm(self, take: Callable[[], T]) -> tuple[T, str]:
        """Do something on the stream that is recorded, with torch watching for what waits for the device."""
        current = torch.cuda.current_stream()
        self._stream.wait_stream(current)
        with torch.cuda.stream(self._stream), warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            torch.cuda.set_sync_debug_mode("warn")
            try:
                found = take()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        current.wait_stream(self._stream)
        waits = [f"{each.filename}:{each.lineno}" for each in caught if SYNCHRONISES in str(each.message)]
        return found, waits[-1] if waits else ""

    def record(self, take: Callable[[], T], generators: Sequence[Generator]) -> tuple[T, Callable[[], None]]:
        """Capture a graph, in which the generators go on from wherever they are when it is launched."""
        graph = torch.cuda.CUDAGraph()
        for generator in generators:
            graph.register_generator_state(generator)
        with torch.cuda.graph(graph, pool=self._pool, stream=self._stream, capture_error_mode="thread_local"):
            found = take()
        return found, graph.replay
