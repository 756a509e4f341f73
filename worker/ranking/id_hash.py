"""Ids -> numbers that look drawn by chance and are always the same: for samples and halves.

The mixing is splitmix64's (Steele, Lea & Flood 2014, doi:10.1145/2660193.2660195): every bit of an
id changes half of the bits of its hash.
"""

import numpy as np
from numpy.typing import NDArray

_STEP = 0x9E3779B97F4A7C15
_MIXING = ((30, 0xBF58476D1CE4E5B9), (27, 0x94D049BB133111EB))
_LAST_SHIFT = 31
_MASK = 0xFFFFFFFFFFFFFFFF


def hash_ids(ids: NDArray[np.int64], *, salt: int) -> NDArray[np.uint64]:
    """One number an id, shape (n,). Those of different salts have nothing to do with each other."""
    hashes = ids.astype(np.uint64)
    hashes += np.uint64((salt + 1) * _STEP & _MASK)
    for shift, factor in _MIXING:
        hashes ^= hashes >> np.uint64(shift)
        hashes *= np.uint64(factor)
    hashes ^= hashes >> np.uint64(_LAST_SHIFT)
    return hashes
