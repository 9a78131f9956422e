"""Dropout that both passes of a SAM step draw alike, whatever draws it inside the network."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Generator


class PairedDropout:
    """Seeds what the forward passes of a training on `device` draw, and leaves the process's own random state alone.

    On a CPU every pass is seeded by its number. A GPU's generator cannot be seeded while a CUDA graph is captured, but
    its state can be exchanged for another: there are two, for the first and the second passes, and both are where the
    first was when a step begins.
    """

    def __init__(self, device: torch.device) -> None:
        self.device = device
        self._seed = 0
        self._drawn = [0, 0]
        self.generators = [Generator(device), Generator(device)] if device.type == "cuda" else []
        """What a CUDA graph has to know of."""

    def seed(self, seed: int) -> None:
        """Begin an epoch."""
        self._seed, self._drawn = seed, [0, 0]
        for generator in self.generators:
            generator.manual_seed(seed)

    def begin_step(self) -> None:
        """Let the second pass draw what the first is about to; not to be called while a graph is captured."""
        self._drawn[1] = self._drawn[0]
        if self.generators:
            first, second = self.generators
            second.set_offset(first.get_offset())

    @contextmanager
    def drawing(self, *, first_pass: bool) -> Iterator[None]:
        """Draw the next dropout of a pass within."""
        which = 0 if first_pass else 1
        if not self.generators:
            # Not manual_seed and fork_rng, which look after all devices of the machine and take longer than a layer.
            state = torch.default_generator.get_state()
            torch.default_generator.manual_seed(self._seed + self._drawn[which])
            self._drawn[which] += 1
            try:
                yield
            finally:
                torch.default_generator.set_state(state)
            return
        process = _default_generator(self.device)
        outer = process.graphsafe_get_state()
        process.graphsafe_set_state(self.generators[which])
        try:
            yield
        finally:
            process.graphsafe_set_state(outer)

    def renew(self) -> None:
        """Replace the generators, and the process's, after a capture that failed: it leaves them unusable."""
        if not self.generators:
            return
        seed = self._seed + 1
        self.generators = [Generator(self.device).manual_seed(seed) for _ in self.generators]
        _default_generator(self.device).graphsafe_set_state(Generator(self.device).manual_seed(seed))


def _default_generator(device: torch.device) -> Generator:
    index = torch.cuda.current_device() if device.index is None else device.index
    return torch.cuda.default_generators[index]
