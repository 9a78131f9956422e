"""What becomes of a training that does not fit into memory."""

from collections.abc import Iterator
from contextlib import contextmanager

import torch

MIN_MICRO_BATCH = 2
"""Of one image there are no batch statistics."""
# What torch says with a RuntimeError: its allocator on a CPU, C++ itself, and the libraries that it calls.
SIGNS = ("can't allocate memory", "bad_alloc", "ALLOC_FAILED")


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError where torch finds no memory, on a GPU or a CPU."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not any(sign in str(error) for sign in SIGNS):
            raise
        raise MemoryError(str(error)) from error


def half(micro_batch_size: int) -> int | None:
    """Return half the size, or None where there is no smaller micro-batch."""
    return size if (size := micro_batch_size // 2) >= MIN_MICRO_BATCH else None
