"""Pieces of memory that go back to the system one by one, when they are let go."""

import mmap

import numpy as np
from numpy.typing import NDArray

_OWN_PAGES_FROM_BYTES = 1 << 16


def copied_to_own_pages(keys: NDArray[np.uint64]) -> NDArray[np.uint64]:
    """A copy whose memory goes back to the system when it is let go.

    The allocator would keep freed pieces that lie between living ones, and the interactions that
    replace them would come on top.
    """
    if keys.nbytes < _OWN_PAGES_FROM_BYTES:
        return keys.copy()
    pages = np.frombuffer(mmap.mmap(-1, keys.nbytes), np.uint64)
    pages[:] = keys
    return pages


def drained(pieces: list[NDArray[np.uint64]]) -> NDArray[np.uint64]:
    """All pieces in one array; each is let go as soon as it is copied."""
    keys = np.empty(sum(len(piece) for piece in pieces), np.uint64)
    filled = 0
    while pieces:
        piece = pieces.pop()
        keys[filled : filled + len(piece)] = piece
        filled += len(piece)
    return keys
