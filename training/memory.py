"""Memory of a CPU worker: keep what tensors free, rather than hand it back to the kernel and fault it in again."""

from __future__ import annotations

import ctypes

_TRIM_THRESHOLD, _TOP_PAD, _MMAP_MAX, _ARENA_MAX = -1, -2, -4, -8
"""Parameters of glibc's mallopt(3)."""


def keep_freed_memory() -> bool:
    """Make this process's allocator keep freed blocks for reuse; False where the C library is not glibc.

    A training step frees and asks for the same large tensors each time. By default glibc maps and unmaps each of them, and
    the kernel zeroes every page again: a tenth of a small model's step. Call it before the first large allocation; the
    process then stays at the height of its memory.
    """
    library = ctypes.CDLL(None)
    if not hasattr(library, "gnu_get_libc_version"):
        return False
    settings = {_ARENA_MAX: 1, _MMAP_MAX: 0, _TOP_PAD: 64 << 20, _TRIM_THRESHOLD: (1 << 31) - 1}
    accepted = [library.mallopt(parameter, value) == 1 for parameter, value in settings.items()]
    return all(accepted)
