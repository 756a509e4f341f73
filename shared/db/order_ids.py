"""Ids of orders that the API takes: made here, growing with time, the same way on every database.

An id is the milliseconds since 2025 in 41 bits and a counter in 12, so that it fits the 53 bits
that a JavaScript number holds, until the year 2094. Ids of data sets are counted from one and stay
far below. Replicas do not agree on ids: in each millisecond a counter begins anywhere, and an id
that is taken after all is refused by the table's key and tried anew.
"""

import random
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Final

EPOCH: Final = datetime(2025, 1, 1, tzinfo=UTC)
COUNTER_BITS: Final = 12
ID_BITS: Final = 53

_EPOCH_MILLISECONDS = int(EPOCH.timestamp() * 1000)
# A counter that begins in the lower half has room for as many again in its millisecond.
_FIRST_COUNTERS = 1 << (COUNTER_BITS - 1)


class OrderIds:
    """Makes ids, each greater than the one before, even if the clock is set back."""

    def __init__(self, clock: Callable[[], float]) -> None:
        """`clock` gives epoch seconds."""
        self._clock = clock
        self._last = 0

    def next(self) -> int:
        milliseconds = int(self._clock() * 1000) - _EPOCH_MILLISECONDS
        first = (milliseconds << COUNTER_BITS) + random.randrange(_FIRST_COUNTERS)
        # Within a millisecond by one; past its end the counter runs into the next.
        is_new = first >> COUNTER_BITS > self._last >> COUNTER_BITS
        self._last = first if is_new else self._last + 1
        assert self._last >> ID_BITS == 0, "until 2094"
        return self._last
