"""What becomes of a training that does not fit into memory."""

import re
from collections.abc import Iterator
from contextlib import contextmanager

import torch

MIN_MICRO_BATCH = 2
"""Of one image there are no batch statistics."""
# What a RuntimeError says then: of torch's allocator on a CPU, of C++, of NVIDIA's libraries, of oneDNN.
SIGNS = re.compile(
    "can't allocate memory|bad_alloc|ALLOC_FAILED|could not (create|execute) a (primitive|memory object)$"
)


@contextmanager
def memory_errors() -> Iterator[None]:
    """Raise MemoryError where torch finds no memory, on a GPU or a CPU."""
    try:
        yield
    except RuntimeError as error:
        if not isinstance(error, torch.OutOfMemoryError) and not SIGNS.search(str(error)):
            raise
        raise MemoryError(str(error)) from error


def half(micro_batch_size: int) -> int | None:
    """Return half the size, or None where there is no smaller micro-batch."""
    return size if (size := micro_batch_size // 2) >= MIN_MICRO_BATCH else None
