"""The usable orders of a database in one scratch file, read once and walked through many times.

A split needs several looks at the orders (where to cut, what comes before, what comes after) at
one and the same state of the data. Twelve bytes an order on disk, one block of them in memory.
"""

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from types import TracebackType
from typing import Self

import numpy as np
from numpy.typing import NDArray

from worker.extract import OrderBlock
from worker.ranking.id_rows import index_ids, rows_of

BLOCK_ORDERS = 1 << 17

_LATEST_SECONDS = (1 << 32) - 1
_RECORD = np.dtype([("user", "<i4"), ("restaurant", "<i4"), ("seconds", "<u4")])
_HALF_BITS = 16

Half = Callable[[NDArray[np.uint32]], NDArray[np.integer]]


@dataclass(frozen=True, slots=True)
class OrderRows:
    """Three columns of shape (n,): rows of users and restaurants, seconds since 1970."""

    users: NDArray[np.int32]
    restaurants: NDArray[np.int32]
    seconds: NDArray[np.uint32]


class OrderLog:
    """Append everything, `close`, then read. Orders of unknown ids are counted and left out."""

    def __init__(
        self, path: Path, *, user_ids: NDArray[np.int64], restaurant_ids: NDArray[np.int64]
    ) -> None:
        """Both ascending without repeats: an id's place is its row."""
        self.user_ids = user_ids
        self.restaurant_ids = restaurant_ids
        self.orders = 0
        self.skipped = 0
        self._known_users = index_ids(user_ids)
        self._known_restaurants = index_ids(restaurant_ids)
        self._path = path
        self._file = path.open("wb")

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    def append(self, block: OrderBlock) -> None:
        users, is_user = rows_of(block.user_ids, self._known_users)
        restaurants, is_restaurant = rows_of(block.restaurant_ids, self._known_restaurants)
        is_known = is_user & is_restaurant
        seconds = np.clip(block.epoch_seconds[is_known], 0, _LATEST_SECONDS)
        self._write(users[is_known], restaurants[is_known], seconds)
        self.skipped += len(is_known) - len(seconds)

    def append_rows(self, rows: OrderRows) -> None:
        self._write(rows.users, rows.restaurants, rows.seconds)

    def _write(
        self,
        users: NDArray[np.integer],
        restaurants: NDArray[np.integer],
        seconds: NDArray[np.integer],
    ) -> None:
        records = np.empty(len(users), _RECORD)
        records["user"] = users
        records["restaurant"] = restaurants
        records["seconds"] = seconds
        self._file.write(records.tobytes())
        self.orders += len(records)

    def close(self) -> None:
        self._file.close()

    def remove(self) -> None:
        self._path.unlink()

    def blocks(self, *, block_orders: int = BLOCK_ORDERS) -> Iterator[OrderRows]:
        """All orders in the order of arrival."""
        with self._path.open("rb") as file:
            while data := file.read(block_orders * _RECORD.itemsize):
                records = np.frombuffer(data, _RECORD)
                yield OrderRows(
                    np.ascontiguousarray(records["user"]),
                    np.ascontiguousarray(records["restaurant"]),
                    np.ascontiguousarray(records["seconds"]),
                )

    def nth_second(self, n: int) -> int:
        """The time of the n-th oldest order, 0 the oldest; of no order, beyond all times."""
        if n >= self.orders:
            return _LATEST_SECONDS + 1
        # Counted in two looks, first by the upper half of the bits: no sorting, no copy.
        upper, before = self._nth_half(n, lambda seconds: seconds >> _HALF_BITS)

        def lower_half(seconds: NDArray[np.uint32]) -> NDArray[np.integer]:
            half: NDArray[np.integer] = seconds[seconds >> _HALF_BITS == upper].astype(np.uint16)
            return half

        lower, _ = self._nth_half(n - before, lower_half)
        return upper << _HALF_BITS | lower

    def _nth_half(self, n: int, half: Half) -> tuple[int, int]:
        """The n-th smallest half, and how many are smaller than it."""
        counts = np.zeros(1 << _HALF_BITS, np.int64)
        for block in self.blocks():
            counts += np.bincount(half(block.seconds), minlength=len(counts))
        ends = np.cumsum(counts)
        place = int(np.searchsorted(ends, n, side="right"))
        return place, int(ends[place] - counts[place])
