"""Memory that a training gives back and takes again in every step."""

import ctypes
import platform

M_TRIM_THRESHOLD, M_TOP_PAD, M_MMAP_MAX = -1, -2, -4  # malloc.h
NEVER = 2**31 - 1
EXTENT = 64 << 20


def keep_freed_memory() -> None:
    """Let this process keep what it frees, where that is up to glibc; `release_freed_memory` gives it back.

    By default glibc asks the kernel for every tensor of more than 32 MB anew and returns the end of its heap whenever
    that is free: the activations of each step on a CPU then cost a page fault for every 4 KiB (docs/performance.md).
    """
    if platform.libc_ver()[0] == "glibc":
        libc = ctypes.CDLL(None)
        for option, value in ((M_MMAP_MAX, 0), (M_TRIM_THRESHOLD, NEVER), (M_TOP_PAD, EXTENT)):
            libc.mallopt(option, value)


def release_freed_memory() -> None:
    """Give the kernel back what is free."""
    if platform.libc_ver()[0] == "glibc":
        ctypes.CDLL(None).malloc_trim(ctypes.c_size_t(0))
