"""The C library's heap of a process that computes: freed memory goes back to the system.

By default each thread gets a heap of its own, and large arrays, once freed, stay for later ones:
the process keeps the sum of what its stages needed instead of the largest.
"""

import ctypes

_ARENA_MAX = -8
_MMAP_THRESHOLD = -3
_TRIM_THRESHOLD = -1
_RETURNED_FROM_BYTES = 1 << 23


def bound_heap() -> None:
    """One heap, arrays from eight MiB outside it; nothing where the C library is not glibc."""
    try:
        mallopt = ctypes.CDLL(None).mallopt
    except (AttributeError, OSError):
        return
    for option, value in (
        (_ARENA_MAX, 1),
        (_MMAP_THRESHOLD, _RETURNED_FROM_BYTES),
        (_TRIM_THRESHOLD, _RETURNED_FROM_BYTES),
    ):
        mallopt(option, value)
