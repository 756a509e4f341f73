"""A score and a row in one 64-bit number whose ascending order is "best first, ties by row".

All keys of one ranking differ, so a partition or a sort of them has exactly one answer: rankings
come out the same whatever the block size, the platform's sort or the order of arrival.
"""

import numpy as np
from numpy.typing import NDArray

Keys = NDArray[np.uint64]
Rows = NDArray[np.int32]
Scores = NDArray[np.float32]

NOTHING = np.uint64(0x7FFFFFFF_FFFFFFFF)
"""Key of score 0 and row -1: what stands behind the end of a ranking."""

_MAGNITUDE = np.int32(0x7FFFFFFF)
_ROW_BITS = np.uint64(32)
_ROW_MASK = np.uint64(0xFFFFFFFF)
_SCORE_MASK = np.uint64(0xFFFFFFFF)
_GROUPED_ROW_BITS = np.uint64(24)
_GROUPED_ROW_MASK = np.uint64(0xFFFFFF)
_GROUP_BITS = np.uint64(56)

MAX_GROUPS = 256
MAX_GROUPED_ROWS = 1 << 24

_ZERO_SCORE = np.uint64(0x7FFFFFFF_00000000)
"""No key of a score above zero is as large, every other is."""


def pack(scores: Scores, rows: Rows) -> Keys:
    """Keys of the shape of `scores`, any real numbers but NaN; 0.0 and -0.0 are not a tie."""
    bits = scores.view(np.int32)
    # Positive floats order like their bits, negative ones backwards: turn the former round.
    turn = bits >> 31
    np.invert(turn, out=turn)
    turn &= _MAGNITUDE
    turn ^= bits
    keys: Keys = turn.view(np.uint32).astype(np.uint64)
    keys <<= _ROW_BITS
    keys |= rows.view(np.uint32)
    return keys


def rows_of(keys: Keys) -> Rows:
    """The rows that were packed, in the order of the keys."""
    return keys.astype(np.uint32).view(np.int32)


def scores_of(keys: Keys) -> Scores:
    """The scores that were packed, to the bit."""
    bits = (keys >> _ROW_BITS).astype(np.uint32).view(np.int32)
    turn = bits >> 31
    np.invert(turn, out=turn)
    turn &= _MAGNITUDE
    turn ^= bits
    return turn.view(np.float32)


def is_positive(keys: Keys) -> NDArray[np.bool_]:
    """Which keys hold a score above zero."""
    return keys < _ZERO_SCORE


def best(keys: Keys, n: int) -> Keys:
    """The n best of a ranking, in order; all of them when there are fewer.

    Sorts and partitions `keys` itself and returns a view of it: nothing is copied.
    """
    if len(keys) > n:
        if n == 0:
            return keys[:0]
        keys.partition(n - 1)
        keys = keys[:n]
    keys.sort()
    return keys


def pack_grouped(groups: NDArray[np.int64], scores: Scores, rows: Rows) -> Keys:
    """Keys of several rankings in one: ascending they are group after group, each best first.

    groups: below MAX_GROUPS. rows: below MAX_GROUPED_ROWS. Shapes (n,).
    """
    keys = pack(scores, rows)
    # 32 bits of the score and 24 of the row move together, the group takes the eight above.
    lower = keys & _ROW_MASK
    keys >>= _ROW_BITS
    keys <<= _GROUPED_ROW_BITS
    keys |= lower
    keys |= groups.astype(np.uint64) << _GROUP_BITS
    return keys


def ungrouped(keys: Keys) -> Keys:
    """What `pack` makes of the same scores and rows."""
    return (((keys >> _GROUPED_ROW_BITS) & _SCORE_MASK) << _ROW_BITS) | (keys & _GROUPED_ROW_MASK)


def group_starts(keys: Keys, groups: int) -> NDArray[np.int64]:
    """Where each group begins among ascending grouped keys, and their end; shape (groups + 1,)."""
    starts = np.full(groups + 1, len(keys))
    starts[:-1] = keys.searchsorted(np.arange(groups, dtype=np.uint64) << _GROUP_BITS)
    return starts
