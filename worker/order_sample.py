"""All orders of some users, kept in a scratch file while everyone's stream by.

Nobody knows beforehand how many orders will come: the sample begins with everybody, and whenever it
has grown too large, every second user leaves it, by the hash of the id. Who is in it at the end
follows from the orders alone, whatever their order and whatever was estimated.
"""

from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from worker.extract import OrderBlock
from worker.order_log import OrderLog, OrderRows
from worker.ranking.id_hash import hash_ids

MAX_ORDERS = 1_000_000

_SALT = 1
_MOST_HALVINGS = 63


class OrderSample:
    """Append everything, `close`, then read `log`. Twelve bytes an order on disk."""

    def __init__(
        self,
        folder: Path,
        *,
        user_ids: NDArray[np.int64],
        restaurant_ids: NDArray[np.int64],
        max_orders: int = MAX_ORDERS,
    ) -> None:
        """Both ascending without repeats."""
        self.log = OrderLog(folder / "sample-0", user_ids=user_ids, restaurant_ids=restaurant_ids)
        self._folder = folder
        self._max_orders = max_orders
        self._halvings = 0

    def append(self, block: OrderBlock) -> None:
        if self._halvings:
            is_in = self.has(block.user_ids)
            block = OrderBlock(
                block.user_ids[is_in], block.restaurant_ids[is_in], block.epoch_seconds[is_in]
            )
        self.log.append(block)
        while self.log.orders > self._max_orders and self._halvings < _MOST_HALVINGS:
            self._halve()

    def close(self) -> None:
        self.log.close()

    def has(self, user_ids: NDArray[np.int64]) -> NDArray[np.bool_]:
        """Which of these users are in the sample, shape (n,)."""
        mask = np.uint64((1 << self._halvings) - 1)
        return np.asarray(hash_ids(user_ids, salt=_SALT) & mask == 0)

    def _halve(self) -> None:
        before = self.log
        before.close()
        self._halvings += 1
        is_in = self.has(before.user_ids)
        rows = (np.cumsum(is_in) - 1).astype(np.int32)
        self.log = OrderLog(
            self._folder / f"sample-{self._halvings}",
            user_ids=before.user_ids[is_in],
            restaurant_ids=before.restaurant_ids,
        )
        for block in before.blocks():
            kept = is_in[block.users]
            self.log.append_rows(
                OrderRows(
                    users=rows[block.users[kept]],
                    restaurants=block.restaurants[kept],
                    seconds=block.seconds[kept],
                )
            )
        before.remove()
